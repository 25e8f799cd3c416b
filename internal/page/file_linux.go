package page

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// seals keep the size as it is, and others from adding seals that would keep us from mapping the page.
const seals = unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_SEAL

var errUnsealed = errors.New("the page's size could be changed by others")

// create makes a file that has no name, of a size that nobody can change.
func create(head []byte, size int64) (*os.File, error) {
	fd, err := memfd(unix.MFD_CLOEXEC | unix.MFD_ALLOW_SEALING)
	if err != nil {
		return nil, os.NewSyscallError("memfd_create", err)
	}
	file := os.NewFile(uintptr(fd), "watt page")
	err = fill(file, head, size)
	if err == nil {
		_, err = fcntl(file, unix.F_ADD_SEALS, seals)
	}
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return file, nil
}

// memfd prefers memory that cannot be executed, which Linux before 6.3 does not know to ask for and
// hardened systems insist on.
func memfd(flags int) (int, error) {
	fd, err := unix.MemfdCreate("watt page", flags|unix.MFD_NOEXEC_SEAL)
	if errors.Is(err, unix.EINVAL) {
		return unix.MemfdCreate("watt page", flags)
	}
	return fd, err
}

// checkSeals returns an error unless the size is fixed.
func checkSeals(file *os.File) error {
	got, err := fcntl(file, unix.F_GET_SEALS, 0)
	if err != nil || got&seals != seals {
		return errUnsealed
	}
	return nil
}

func fcntl(file *os.File, command, argument int) (result int, err error) {
	conn, err := file.SyscallConn()
	if err != nil {
		return 0, err
	}
	outer := conn.Control(func(fd uintptr) { result, err = unix.FcntlInt(fd, command, argument) })
	return result, errors.Join(outer, os.NewSyscallError("fcntl", err))
}
