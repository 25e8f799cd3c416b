// Package hrtick has the kernel look more often at which thread should run.
//
// Linux's fair scheduler (EEVDF) takes a processor from a thread that computes when another wakes up there that has not had
// its share, or at a tick of its clock, every 4 ms in most kernels. A thread that was preempted, or that has had a little
// more than its share as it wakes up, waits for the next tick, however low the priority of the one that computes: that has
// the processor less often, but then until a tick. The kernel's own remedy, its feature HRTICK, is off in what distributions
// ship. So are these: threads that wake up between the ticks.
package hrtick

import (
	"runtime"
	"sync"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// period is how often each thread wakes up. With half of it a light route beside jobs was no faster, and fewer jobs were done;
// with twice of it its p99 was a quarter higher.
const period = 500 * time.Microsecond

// slice is the time that a thread asks to have in one piece: the least there is. Newer kernels let in at once who asks for
// less than the thread that computes.
const slice = 100 * time.Microsecond

// Name is what the threads are called.
const Name = "watt-hrtick"

// Ticks are threads, one on each processor that this process may use. The zero value has none. Its methods are not to be
// called at the same time.
type Ticks struct {
	end     chan struct{} // nil if there are none
	threads sync.WaitGroup
}

// Begin starts the threads, unless there are some. It needs no privilege. Where the system refuses what a thread needs, that
// ends at once.
func (t *Ticks) Begin() {
	var all unix.CPUSet
	if t.end != nil || unix.SchedGetaffinity(0, &all) != nil {
		return
	}
	t.end = make(chan struct{})
	for cpu, left := 0, all.Count(); left > 0; cpu++ {
		if all.IsSet(cpu) {
			left--
			t.threads.Go(func() { tick(cpu, t.end) })
		}
	}
}

// End ends the threads, if there are any.
func (t *Ticks) End() {
	if t.end != nil {
		close(t.end)
		t.threads.Wait()
		t.end = nil
	}
}

// tick is the life of a thread. For Go it waits for its end all the time: a thread that slept would have Go's scheduler take
// part each time. Only the kernel wakes it, by a signal that Go's runtime has a use for itself, so that it is caught already:
// one that the runtime has not sent it does nothing, and the thread waits on.
func tick(cpu int, end <-chan struct{}) {
	runtime.LockOSThread() // never unlocked: the thread, which is of no use to others, ends with the goroutine
	if unix.Gettid() == unix.Getpid() {
		defer runtime.UnlockOSThread() // the first thread would not end, and its name is that of the process
		var other sync.WaitGroup
		other.Go(func() { tick(cpu, end) })
		other.Wait()
		return
	}
	var one unix.CPUSet
	one.Set(cpu)
	if unix.SchedSetaffinity(0, &one) != nil {
		return
	}
	name := append([]byte(Name), 0)
	_, _, _ = unix.Syscall(unix.SYS_PRCTL, unix.PR_SET_NAME, uintptr(unsafe.Pointer(&name[0])), 0)
	if attr, err := unix.SchedGetAttr(0, 0); err == nil && attr.Policy == unix.SCHED_NORMAL {
		attr.Runtime = uint64(slice)
		_ = unix.SchedSetAttr(0, attr, 0)
	}
	if timer, err := signalEvery(period); err == nil {
		<-end
		_, _, _ = unix.Syscall(unix.SYS_TIMER_DELETE, uintptr(timer), 0, 0)
	}
}

// signalEvery makes a timer that sends the calling thread a signal, and returns the kernel's number for it.
func signalEvery(period time.Duration) (timer int32, err error) {
	event := sigevent{signal: int32(unix.SIGURG), notify: sigevThreadID, thread: int32(unix.Gettid())}
	if _, _, e := unix.Syscall(unix.SYS_TIMER_CREATE, unix.CLOCK_MONOTONIC, uintptr(unsafe.Pointer(&event)), uintptr(unsafe.Pointer(&timer))); e != 0 {
		return 0, e
	}
	every := unix.NsecToTimespec(int64(period))
	spec := unix.ItimerSpec{Interval: every, Value: every}
	if _, _, e := unix.Syscall6(unix.SYS_TIMER_SETTIME, uintptr(timer), 0, uintptr(unsafe.Pointer(&spec)), 0, 0, 0); e != 0 {
		return 0, e // the timer, which does nothing, ends with the process
	}
	return timer, nil
}

// sigevent is the kernel's struct of that name, for SIGEV_THREAD_ID.
type sigevent struct {
	value  uintptr
	signal int32
	notify int32
	thread int32
	_      [64 - 3*4 - unsafe.Sizeof(uintptr(0))]byte // it has 64 bytes in all
}

const sigevThreadID = 4
