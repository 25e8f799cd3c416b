package watt

import (
	"context"
	"errors"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	"go.uber.org/zap"
)

// frontage is the public side of own processes: a port with a listener for each instance. While an instance is
// down its listener gets nothing new, and what it still gets, the parent accepts and gives to a sibling.
type frontage struct {
	place  *processes
	port   *port
	vacant *vacancy
	ctx    context.Context //nolint:containedctx // of connections that the parent has taken; it ends with the port
	cancel context.CancelFunc

	accepting sync.WaitGroup // by the parent

	growing  sync.Mutex
	mu       sync.Mutex
	standIns map[*net.TCPListener]*standIn
}

// standIn is the acceptance of one listener's connections by the parent, for the instances that are down. It is one's,
// unless they share the listener.
type standIn struct {
	stop context.CancelFunc
	down map[int]bool
}

// expose opens the port of an app.
func (p *processes) expose(ctx context.Context, config *App) error {
	opened, err := openPort(ctx, config.Listen, config.Instances, p.app.rt.Listen)
	if err != nil {
		return err
	}
	f := &frontage{place: p, port: opened, vacant: newVacancy(p, config), standIns: make(map[*net.TCPListener]*standIn)}
	f.ctx, f.cancel = context.WithCancel(context.Background())
	p.app.rt.mu.Lock() // Admin may ask for Status already
	p.public = f
	p.app.rt.mu.Unlock()
	p.app.log.Info("listening", zap.String("address", opened.address))
	return nil
}

// listener returns the listener of an instance, and makes it if there is none yet. What a new one gets before the instance
// is up, while no other is, is for whoever comes up first.
func (f *frontage) listener(index int) (syscall.Conn, error) {
	f.growing.Lock()
	defer f.growing.Unlock()
	for f.port.listener(index) == nil {
		grown, err := f.port.grow(context.Background())
		if err != nil {
			return nil, err
		}
		f.down(grown)
	}
	return f.port.listener(index), nil
}

// up lets the kernel give the instance connections.
func (f *frontage) up(index int) {
	f.stopAccepting(index)
	f.vacant.over()
	f.port.weigh(index, true)
}

// stopAccepting ends the acceptance by the parent for one instance. What was accepted is still given to one.
func (f *frontage) stopAccepting(index int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for ln, s := range f.standIns {
		delete(s.down, index)
		if len(s.down) == 0 {
			delete(f.standIns, ln)
			s.stop()
			_ = ln.SetDeadline(time.Unix(1, 0)) // long ago
		}
	}
}

// down keeps new connections away from the instance.
func (f *frontage) down(index int) {
	f.port.weigh(index, false)
	ln := f.port.listener(index)
	if ln == nil {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if s := f.standIns[ln]; s != nil {
		s.down[index] = true
		return
	}
	ctx, cancel := context.WithCancel(f.ctx)
	f.standIns[ln] = &standIn{stop: cancel, down: map[int]bool{index: true}}
	_ = ln.SetDeadline(time.Time{})
	f.accepting.Go(func() { f.accept(ctx, ln) })
}

// accept gives what the listener gets to siblings. While there is none that takes it, it stays in the kernel's queue, for
// as long as a request may wait. Then it is refused.
func (f *frontage) accept(ctx context.Context, ln *net.TCPListener) {
	for t := newTrouble(f.place.app.log); ; {
		if _, err := f.taker(ctx); err != nil && ctx.Err() != nil {
			return
		}
		conn, err := ln.AcceptTCP()
		if err != nil {
			if ctx.Err() != nil || !t.wait(err, ctx.Done()) {
				return
			}
			continue
		}
		t.over()
		if err := f.give(conn); err != nil {
			f.vacant.refuse(conn, err)
			continue
		}
		_ = conn.Close()
	}
}

// give gives a connection to whichever instance takes it first, until the port is closed.
func (f *frontage) give(conn *net.TCPConn) error {
	for {
		o, err := f.taker(f.ctx)
		if err != nil {
			return err
		}
		err = f.handTo(o, conn)
		if err == nil {
			return nil
		}
		if errors.Is(err, errDraining) || errors.Is(err, os.ErrDeadlineExceeded) {
			continue
		}
		select { // who cannot be told anything is about to end
		case <-o.gone:
		case <-f.ctx.Done():
			return err
		}
	}
}

// handTime is how long an instance may take to read of a connection before another gets it.
const handTime = time.Second

func (f *frontage) handTo(o *own, conn syscall.Conn) error {
	ctx, cancel := context.WithTimeoutCause(f.ctx, handTime, os.ErrDeadlineExceeded)
	defer cancel()
	return o.say(ctx, sayPublic, nil, conn)
}

// taker returns the instance that is to be given a connection. It waits for one as long as a request may.
func (f *frontage) taker(ctx context.Context) (*own, error) {
	o, err := f.place.pick(ctx, nil, f.vacant.until())
	if err == nil {
		f.vacant.over()
	}
	return o, err
}

// removed takes the listener of an instance away that will not come back, if it had one: perhaps its process did not start.
func (f *frontage) removed(ctx context.Context, index int) error {
	if f.port.listener(index) == nil {
		return nil
	}
	err := f.port.remove(ctx, index)
	f.stopAccepting(index)
	return err
}

// quiet closes the port, for which clients have lameDuckTime: who comes after that is refused.
func (f *frontage) quiet(ctx context.Context) {
	f.place.app.changed() // who waits for an instance need not any more
	began := time.Now()
	wait(ctx, func() bool { return f.open() == 0 || time.Since(began) >= lameDuckTime })
	f.place.app.empty(ctx, f.port.listeners()...)
	_ = f.port.close()
}

// open returns how many connections the instances have.
func (f *frontage) open() int {
	var s Status
	f.place.count(&s)
	return s.PublicConns
}

func (f *frontage) close(ctx context.Context) {
	f.cancel()
	_ = f.port.close()
	f.accepting.Wait()
	f.vacant.close(ctx)
}
