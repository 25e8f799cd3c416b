package watt

import (
	"context"
	"errors"
	"net"
	"os"
	"time"

	"github.com/org/watt/internal/control"
	"github.com/org/watt/internal/pipe"
)

// inlet is the public listener of an instance in a process of its own: its share of the port, and the connections
// that its parent has for it.
type inlet struct {
	*pipe.Listener
	port net.Listener
}

func newInlet(port net.Listener) *inlet {
	return &inlet{pipe.Listen(new(pipe.Buffers), pipe.Addr(port.Addr().String())), port}
}

// run accepts from the port until that is closed.
func (i *inlet) run() {
	for pause := time.Duration(0); ; {
		conn, err := i.port.Accept()
		switch {
		case err == nil:
			pause = 0
			if i.Deliver(context.Background(), conn) != nil {
				_ = conn.Close()
			}
			continue
		case errors.Is(err, net.ErrClosed):
			return
		}
		pause = min(max(2*pause, 5*time.Millisecond), time.Second) // as net/http does
		<-time.After(pause)
	}
}

// accept takes a connection from the parent.
func (i *inlet) accept(f *os.File) {
	conn, err := control.ConnOf(f)
	if err != nil {
		return // whoever is there sees it closed
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	if i.Deliver(ctx, conn) != nil {
		_ = conn.Close()
	}
}

// Addr returns the port's.
func (i *inlet) Addr() net.Addr { return i.port.Addr() }

// Close closes this process's share of the port. What the port gets from then on, the parent takes.
func (i *inlet) Close() error { return errors.Join(i.port.Close(), i.Listener.Close()) }
