package sockdiag //nolint:testpackage // what the kernel says wrongly cannot be had from outside

import (
	"testing"

	"golang.org/x/sys/unix"
)

func TestWhatTheKernelRefusesToTellIsAnError(t *testing.T) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_SOCK_DIAG)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	const noFamily = 200
	if err := unix.Sendto(fd, askForSockets(noFamily, 1, Listening), 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		t.Fatal(err)
	}
	if found, err := receiveSockets(fd); err == nil {
		t.Errorf("got sockets %v of a family that does not exist, want an error", found)
	}
	if got := parseSocket(make([]byte, 10)); got != nil {
		t.Errorf("got sockets %v from half a message, want none", got)
	}
}
