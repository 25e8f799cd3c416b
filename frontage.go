package watt

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"syscall"
	"time"

	"go.uber.org/zap"
)

// frontage is the public side of own processes: a port with a listener for each instance. While an instance is
// down its listener gets nothing new, and what it still gets, the parent accepts and gives to a sibling.
type frontage struct {
	place *processes
	port  *port

	mu     sync.Mutex
	strays map[int]*strays
}

// strays is the acceptance of one listener's connections by the parent.
type strays struct {
	stop context.CancelFunc
	done chan struct{}
}

// expose opens the port of an app.
func (p *processes) expose(ctx context.Context, config *App) error {
	opened, err := openPort(ctx, "tcp", config.Listen, config.Instances, p.app.rt.Listen)
	if err != nil {
		return err
	}
	p.app.rt.mu.Lock() // Admin may ask for Status already
	p.public = &frontage{place: p, port: opened, strays: make(map[int]*strays)}
	p.app.rt.mu.Unlock()
	p.app.log.Info("listening", zap.String("address", opened.address))
	return nil
}

// listener returns the listener of an instance, and makes it if there is none yet.
func (f *frontage) listener(index int) (syscall.Conn, error) {
	for f.port.listener(index) == nil {
		if _, err := f.port.grow(context.Background()); err != nil {
			return nil, err
		}
	}
	return f.port.listener(index), nil
}

// up lets the kernel give the instance connections.
func (f *frontage) up(index int) {
	f.settle(index)
	f.weigh(index, true)
}

func (f *frontage) weigh(index int, on bool) {
	if err := f.port.weigh(index, on); err != nil && !errors.Is(err, net.ErrClosed) {
		f.place.app.log.Warn("the port cannot be steered", zap.Error(err))
	}
}

// settle ends the acceptance by the parent.
func (f *frontage) settle(index int) {
	f.mu.Lock()
	s := f.strays[index]
	delete(f.strays, index)
	f.mu.Unlock()
	if s == nil {
		return
	}
	s.stop()
	if ln := f.port.listener(index); ln != nil {
		_ = ln.SetDeadline(time.Unix(1, 0))
		<-s.done
		_ = ln.SetDeadline(time.Time{})
		return
	}
	<-s.done
}

// down keeps new connections away from the instance.
func (f *frontage) down(index int) {
	f.weigh(index, false)
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.strays[index] != nil {
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	s := &strays{stop: cancel, done: make(chan struct{})}
	f.strays[index] = s
	f.place.app.rt.owned.Go(func() {
		defer close(s.done)
		f.accept(ctx, index)
	})
}

// accept gives what the listener gets to siblings, as soon as there is one.
func (f *frontage) accept(ctx context.Context, index int) {
	ln := f.port.listener(index)
	pause := time.Duration(0)
	for ln != nil && f.place.anyReady(ctx) {
		conn, err := ln.Accept()
		if err != nil {
			if ctx.Err() != nil || errors.Is(err, net.ErrClosed) {
				return
			}
			pause = longer(pause)
			select {
			case <-time.After(pause):
			case <-ctx.Done():
			}
			continue
		}
		pause = 0
		if err := f.give(ctx, conn); err != nil {
			f.place.app.log.Warn("a connection was lost: no instance could take it", zap.Error(err))
		}
	}
}

func (f *frontage) give(ctx context.Context, conn net.Conn) error {
	defer func() { _ = conn.Close() }()
	tcp, ok := conn.(syscall.Conn)
	if !ok {
		return fmt.Errorf("%T has no descriptor", conn)
	}
	for {
		o, err := f.place.pick(ctx, nil, true)
		if err != nil {
			return err
		}
		if err = o.say(ctx, sayPublic, nil, tcp); err == nil {
			return nil
		}
		select { // who cannot be told anything is about to end
		case <-o.process.Done():
		case <-ctx.Done():
			return err
		}
	}
}

// anyReady waits until an instance is ready. It reports false when ctx ends first.
func (p *processes) anyReady(ctx context.Context) bool {
	for {
		change := p.app.changing()
		if p.idlest(nil) != nil {
			return true
		}
		select {
		case <-change:
		case <-ctx.Done():
			return false
		}
	}
}

// removed takes the listener of an instance away that will not come back.
func (f *frontage) removed(ctx context.Context, index int) error {
	err := f.port.remove(ctx, index)
	f.settle(index)
	return err
}

func (f *frontage) close() {
	f.mu.Lock()
	var indexes []int
	for i := range f.strays {
		indexes = append(indexes, i)
	}
	f.mu.Unlock()
	_ = f.port.close()
	for _, i := range indexes {
		f.settle(i)
	}
}
