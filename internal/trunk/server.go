package trunk

import (
	"bufio"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/org/watt/internal/pipe"
)

// Server is the callee's end of a connection.
type Server struct {
	nc      net.Conn
	buffers *pipe.Buffers
	handle  func(*Incoming)
	out     writer

	mu    sync.Mutex
	calls map[uint64]*Incoming // in progress
	fault error                // of the caller: why the connection is closed
}

// NewServer returns the end of a connection on whose other side is a [Client]. handle is called for each call, in a
// goroutine of its own. The memory of long answers comes from buffers.
func NewServer(nc net.Conn, buffers *pipe.Buffers, handle func(*Incoming)) *Server {
	s := &Server{nc: nc, buffers: buffers, handle: handle, calls: make(map[uint64]*Incoming)}
	s.out.init(nc)
	return s
}

// Serve takes calls until the connection ends, and closes it. Calls in progress are told then that their caller has gone. It
// returns [io.EOF] if the caller has closed it, and an error that wraps ErrMalformed if it was found before that it has sent what
// it must not.
func (s *Server) Serve() error {
	err := readAll(s.nc, &s.out, s.receive)
	_ = s.nc.Close()
	s.out.fail(err)
	s.mu.Lock()
	calls := s.calls
	s.calls = nil
	if s.fault != nil {
		err = s.fault
	}
	s.mu.Unlock()
	for _, c := range calls {
		c.gone()
	}
	return err
}

// fail closes the connection for a fault of the caller's.
func (s *Server) fail(fault error) {
	s.mu.Lock()
	s.fault = fault
	s.mu.Unlock()
	_ = s.nc.Close()
}

// Leave tells the caller to make no more calls. What it has sent until it hears that is still served; then it closes the
// connection.
func (s *Server) Leave() { s.out.tell(short(kindLeave, 0)) }

// Calls returns how many calls are in progress: their answers are not sent yet. Those of which all waits for the system to
// take it count as one.
func (s *Server) Calls() int {
	s.mu.Lock()
	n := len(s.calls)
	s.mu.Unlock()
	if n == 0 && s.out.waits() {
		return 1
	}
	return n
}

// receive takes a frame from the caller, whose head has been read.
func (s *Server) receive(f frame, r *bufio.Reader) error {
	return f.content(r, func(p []byte) error {
		switch f.kind {
		case kindRequest:
			return s.begin(f.id, p)
		case kindCredit:
			sc := scanner{s: string(p)}
			n := sc.number()
			if sc.bad || n > window {
				return ErrMalformed
			}
			if c := s.of(f.id); c != nil {
				c.credit(int(n))
			}
		case kindGone:
			if c := s.of(f.id); c != nil {
				c.gone()
			}
		default:
			return fmt.Errorf("%w: of kind %d", ErrMalformed, f.kind)
		}
		return nil
	})
}

func (s *Server) begin(id uint64, p []byte) error {
	c := &Incoming{Came: time.Now(), server: s, id: id, said: string(p), room: window}
	c.changed.L = &c.mu
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.calls[id] != nil {
		return ErrMalformed
	}
	s.calls[id] = c
	go s.handle(c)
	return nil
}

// of returns the call with a number, or nil if that is over.
func (s *Server) of(id uint64) *Incoming {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.calls[id]
}

func (s *Server) remove(c *Incoming) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.calls[c.id] == c { // else it was over, and the number is that of another
		delete(s.calls, c.id)
	}
}
