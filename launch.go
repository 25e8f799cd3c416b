package watt

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"syscall"
	"time"

	"go.uber.org/zap"

	"github.com/org/watt/internal/cgroup"
	"github.com/org/watt/internal/control"
	"github.com/org/watt/internal/process"
)

// rerun tells whoever has not read the documentation what a child is.
const rerun = "main runs again in the process of each instance, and what it does before Run must be quick and repeatable"

// start implements life: the child has to reach Run, to be of the same program, and to become ready.
func (o *own) start(ctx context.Context) error {
	if err := o.launch(); err != nil {
		return err
	}
	select {
	case <-o.hello:
	case <-o.process.Done():
		return fmt.Errorf("main did not reach Run with these apps: %w (%s)", o.process.Exit(), rerun)
	case <-ctx.Done():
		if why := context.Cause(ctx); !errors.Is(why, context.DeadlineExceeded) {
			return givenUp(why)
		}
		return fmt.Errorf("main did not reach Run with these apps in time: %w (%s)", context.Cause(ctx), rerun)
	}
	o.lowerPriority()
	if err := o.beginning(); err != nil {
		return o.whyNotTold(err)
	}
	if err := o.becomesReady(ctx); err != nil {
		return err
	}
	o.begun()
	return nil
}

// becomesReady returns when the child is ready, or why it is not. One that was ready and has ended since is no failure of the
// start: its supervisor sees to that as to any end.
func (o *own) becomesReady(ctx context.Context) error {
	select {
	case err := <-o.ready:
		return err
	case <-o.process.Done():
		return o.whyNotReady()
	case <-ctx.Done():
		return o.whyLate(context.Cause(ctx))
	}
}

// whyNotTold explains why a child could not be told something: most likely it has ended, which is about to be known.
func (o *own) whyNotTold(err error) error {
	if lost(err) && o.endsSoon() {
		<-o.process.Done()
		return o.process.Exit()
	}
	return err
}

// whyNotReady explains the end of a child that was not ready, by its own words if it has said why. It returns nil if the
// child was.
func (o *own) whyNotReady() error {
	if err, said := lastWords(o, o.ready); said {
		return err
	}
	return o.process.Exit()
}

// whyLate explains why a child was not ready in time. The child has the same StartTimeout, which began a moment later there,
// and knows what has kept it: it says so once New has had its chance to return.
func (o *own) whyLate(why error) error {
	if _, late := errors.AsType[lateError](why); late {
		select {
		case err := <-o.ready:
			if err != nil {
				return err
			}
		case <-o.process.Done():
			if err := o.whyNotReady(); err != nil {
				return err
			}
		case <-time.After(graceAfterCut + partTime): // it does not get to it
		}
	}
	if !errors.Is(why, context.DeadlineExceeded) {
		return givenUp(why)
	}
	return fmt.Errorf("not ready in time: %w", why)
}

// givenUp returns the error of a start that is not wanted any more, such as that of an instance which an Update removes.
func givenUp(why error) error { return fmt.Errorf("given up before it was ready: %w", why) }

// begun is called when the child says that it is ready.
func (o *own) begun() {
	o.slot.State.Store(slotReady)
	o.place.app.rt.owned.Go(o.pulse.watch)
}

// launch starts the process, and listens to it from then on.
func (o *own) launch() error {
	config := o.place.app.conf()
	mine, theirs, err := control.Pair()
	if err != nil {
		return err
	}
	defer func() { _ = theirs.Close() }()
	b := birth{
		Parent: os.Getpid(), App: config.Name, Instance: o.index, Table: o.place.nursery.table, Program: process.Program(),
		Control: control.ID(theirs.Fd()),
	}
	o.place.expect(o)
	o.place.app.showBack() // which was in the slot that is used anew
	o.process, err = o.place.nursery.starter.Start(process.Spec{
		Args: process.Args(os.Args[1:]), Env: append(os.Environ(), o.environment(config, b)...), Control: theirs,
		Stdout: o.output(os.Stdout), Stderr: o.output(os.Stderr),
	})
	if err != nil {
		_ = mine.Close()
		return err
	}
	o.conn = mine
	o.place.app.rt.owned.Go(o.listen)
	o.place.app.rt.owned.Go(o.awaitEnd)
	o.lowerPriority()
	if config.MemoryLimit > 0 {
		return o.process.SetMemoryLimit(uint64(config.MemoryLimit))
	}
	return nil
}

// lowerPriority is called twice: a thread that was just being made the first time may have missed it.
func (o *own) lowerPriority() {
	nice := o.place.app.conf().Nice
	if nice <= 0 {
		return
	}
	if err := o.process.LowerPriority(nice); err != nil {
		o.log.Warn("its priority stays as it is", zap.Error(err))
	}
}

// output returns where one of the child's streams goes.
func (o *own) output(same io.Writer) io.Writer {
	give := o.place.app.rt.Output
	if give == nil {
		return same
	}
	return process.Lines(same, func(line string) { give(o.place.app.name, o.index, line) })
}

// environment is what the child finds beside the parent's: who it is, and its share of the machine. One processor
// more than its share, and two at least, lets it answer while all of its workers compute.
func (o *own) environment(config *App, b birth) []string {
	share := int(math.Ceil(cgroup.CPUs() / float64(config.Instances)))
	env := []string{b.variable(), fmt.Sprintf("GOMAXPROCS=%d", max(2, share+1))}
	if config.MemoryLimit > 0 {
		env = append(env, fmt.Sprintf("GOMEMLIMIT=%d", config.MemoryLimit))
	}
	return env
}

// beginning tells a child that has reached Run what it is to begin with.
func (o *own) beginning() error {
	config := o.place.app.conf()
	o.begunBy = o.place.app.terms()
	n := o.place.nursery
	files := []syscall.Conn{n.page.File()}
	if o.place.public != nil {
		ln, err := o.place.public.listener(o.index)
		if err != nil {
			return err
		}
		files = append(files, ln)
	}
	return o.say(o.life, sayBegin, task{
		terms: o.begunBy, Slots: n.slots, Calls: n.calls[config.Name] + o.index*len(config.Calls),
	}, files...)
}
