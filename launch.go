package watt

import (
	"fmt"
	"io"
	"math"
	"os"
	"syscall"

	"go.uber.org/zap"

	"github.com/org/watt/internal/cgroup"
	"github.com/org/watt/internal/control"
	"github.com/org/watt/internal/process"
)

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

func (o *own) beginning() error {
	config := o.place.app.conf()
	o.begunBy = o.place.app.known()
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
		Limits: o.begunBy, Slot: n.slots[config.Name].First + o.index, Slots: n.slots,
		Calls: n.calls[config.Name] + o.index*len(config.Calls),
	}, files...)
}
