//go:build unix

package page

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// fill gives a new file its size and its beginning.
func fill(file *os.File, head []byte, size int64) error {
	if err := file.Truncate(size); err != nil {
		return err
	}
	_, err := file.WriteAt(head, 0)
	return err
}

func mapFile(file *os.File, size int) (memory []byte, err error) {
	conn, err := file.SyscallConn()
	if err != nil {
		return nil, err
	}
	outer := conn.Control(func(fd uintptr) {
		memory, err = unix.Mmap(int(fd), 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	})
	return memory, errors.Join(outer, os.NewSyscallError("mmap", err))
}

func unmap(memory []byte) error { return os.NewSyscallError("munmap", unix.Munmap(memory)) }
