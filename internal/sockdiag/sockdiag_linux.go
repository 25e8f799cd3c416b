package sockdiag

import (
	"encoding/binary"
	"fmt"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// States of TCP sockets, as bits: TCPF_ of linux/tcp_states.h.
const (
	SynReceived = 1 << 3
	Listening   = 1 << 10
)

// The message that asks for sockets: inet_diag_req_v2 of linux/inet_diag.h behind a header. What the
// kernel answers has a socket's identity at the same place.
const (
	diagHeader   = unix.SizeofNlMsghdr
	diagRequest  = diagHeader + 56
	diagAnswer   = 72
	diagIdentity = 4
)

// Socket is what the kernel tells of a socket.
type Socket struct {
	Local, Remote string // address and device; address and port: to be compared, not read
	Inode         uint32
}

// TCP returns the TCP sockets of this network namespace that are in some of the states at a port
// of this host. It returns an error where the kernel was built without this, or a sandbox forbids it.
func TCP(port int, states uint32) ([]Socket, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_SOCK_DIAG)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	defer func() { _ = unix.Close(fd) }()
	var all []Socket
	for _, family := range []byte{unix.AF_INET, unix.AF_INET6} {
		if err := unix.Sendto(fd, askForSockets(family, port, states), 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
			return nil, os.NewSyscallError("sendto", err)
		}
		found, err := receiveSockets(fd)
		if err != nil {
			return nil, fmt.Errorf("asking for sockets: %w", err)
		}
		all = append(all, found...)
	}
	return all, nil
}

func askForSockets(family byte, port int, states uint32) []byte {
	m := make([]byte, diagRequest)
	binary.NativeEndian.PutUint32(m[0:], diagRequest)
	binary.NativeEndian.PutUint16(m[4:], unix.SOCK_DIAG_BY_FAMILY)
	binary.NativeEndian.PutUint16(m[6:], unix.NLM_F_REQUEST|unix.NLM_F_DUMP)
	m[diagHeader], m[diagHeader+1] = family, unix.IPPROTO_TCP
	binary.NativeEndian.PutUint32(m[diagHeader+4:], states)
	binary.BigEndian.PutUint16(m[diagHeader+8:], uint16(port))
	return m
}

// receiveSockets reads answers to the last one.
func receiveSockets(fd int) ([]Socket, error) {
	var found []Socket
	buffer := make([]byte, 64<<10)
	for {
		n, _, err := unix.Recvfrom(fd, buffer, 0)
		if err != nil {
			return nil, os.NewSyscallError("recvfrom", err)
		}
		messages, err := syscall.ParseNetlinkMessage(buffer[:n])
		if err != nil {
			return nil, err
		}
		for _, m := range messages {
			switch m.Header.Type {
			case unix.NLMSG_DONE:
				return found, nil
			case unix.NLMSG_ERROR:
				return nil, refusal(m.Data)
			default:
				found = append(found, parseSocket(m.Data)...)
			}
		}
	}
}

func refusal(data []byte) error {
	if len(data) < 4 {
		return syscall.EPROTO
	}
	return syscall.Errno(-int32(binary.NativeEndian.Uint32(data)))
}

// parseSocket reads an inet_diag_msg. What is too short is none.
func parseSocket(data []byte) []Socket {
	if len(data) < diagAnswer {
		return nil
	}
	family, id := data[:1], data[diagIdentity:] // ports, addresses, device
	return []Socket{{
		Local:  string(family) + string(id[4:20]) + string(id[36:40]),
		Remote: string(id[2:4]) + string(id[20:36]),
		Inode:  binary.NativeEndian.Uint32(data[68:]),
	}}
}
