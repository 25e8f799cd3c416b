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

// Ticks are threads, one on each processor that this process may use, there from the first Begin on. The zero value has none.
// When the processors are others than before, the next Begin after an End has other threads.
// Its methods are not to be called at the same time.
type Ticks struct {
	cpus    unix.CPUSet   // that they are on
	timers  []int32       // the kernel's numbers of those that wake the threads
	period  time.Duration // that they are set to, or 0
	end     chan struct{} // closed when the threads are to end; nil if there are none
	threads sync.WaitGroup
}

// Begin has the threads wake up from now on. It needs no privilege. Where the system refuses to place or wake
// them, they do nothing.
func (t *Ticks) Begin() {
	if t.period == 0 && t.moved() {
		t.Close()
	}
	if t.end == nil {
		t.start()
	}
	t.every(period)
}

// End lets the threads sleep. They stay: of each that ends while there is a CPU profile, Go's runtime leaves a timer behind, of
// which a user may have only so many.
func (t *Ticks) End() { t.every(0) }

// Close ends the threads.
func (t *Ticks) Close() {
	if t.end == nil {
		return
	}
	for _, timer := range t.timers {
		_, _, _ = unix.Syscall(unix.SYS_TIMER_DELETE, uintptr(timer), 0, 0)
	}
	close(t.end)
	t.threads.Wait()
	t.timers, t.period, t.end = nil, 0, nil
}

// moved reports whether this process may use other processors than the threads are on.
func (t *Ticks) moved() bool {
	var now unix.CPUSet
	return unix.SchedGetaffinity(0, &now) == nil && now != t.cpus
}

// start makes the threads, and their timers.
func (t *Ticks) start() {
	t.end = make(chan struct{})
	if unix.SchedGetaffinity(0, &t.cpus) != nil {
		return
	}
	left := t.cpus.Count()
	made := make(chan []int32)
	for cpu := 0; left > 0; cpu++ {
		if t.cpus.IsSet(cpu) {
			left--
			t.threads.Go(func() { live(cpu, made, t.end) })
			t.timers = append(t.timers, <-made...)
		}
	}
}

// every has the timers go off that often, or not at all if period is zero.
func (t *Ticks) every(period time.Duration) {
	if period == t.period {
		return
	}
	t.period = period
	every := unix.NsecToTimespec(int64(period))
	spec := unix.ItimerSpec{Interval: every, Value: every}
	for _, timer := range t.timers {
		_, _, _ = unix.Syscall6(unix.SYS_TIMER_SETTIME, uintptr(timer), 0, uintptr(unsafe.Pointer(&spec)), 0, 0, 0)
	}
}

// live is the life of a thread, which tells of its timer, if it has one. It waits for its end all the time, with nothing for
// Go's scheduler to do, which a thread that slept would give as much to do as all else: only the kernel wakes it, with a
// signal that Go's runtime uses itself, ignores unless it has sent it, and does not end the wait for.
func live(cpu int, made chan<- []int32, end <-chan struct{}) {
	runtime.LockOSThread() // never unlocked: the thread, which is of no use to others, ends with the goroutine
	if unix.Gettid() == unix.Getpid() {
		defer runtime.UnlockOSThread() // the first thread would not end, and its name is that of the process
		var other sync.WaitGroup
		other.Go(func() { live(cpu, made, end) })
		other.Wait()
		return
	}
	made <- prepare(cpu)
	<-end
}

// prepare makes the calling thread one that can tick on cpu, and returns its timer, or none.
func prepare(cpu int) []int32 {
	name := [16]byte{} // which is as long as one may be
	copy(name[:], Name)
	_, _, _ = unix.Syscall(unix.SYS_PRCTL, unix.PR_SET_NAME, uintptr(unsafe.Pointer(&name[0])), 0)
	if attr, err := unix.SchedGetAttr(0, 0); err == nil && attr.Policy == unix.SCHED_NORMAL {
		attr.Runtime = uint64(slice)
		_ = unix.SchedSetAttr(0, attr, 0)
	}
	var one unix.CPUSet
	one.Set(cpu)
	if unix.SchedSetaffinity(0, &one) != nil { // after the slice: it may have to wait there for the first time
		return nil
	}
	event := sigevent{signal: int32(unix.SIGURG), notify: sigevThreadID, thread: int32(unix.Gettid())}
	var timer int32
	if _, _, e := unix.Syscall(unix.SYS_TIMER_CREATE, unix.CLOCK_MONOTONIC, uintptr(unsafe.Pointer(&event)), uintptr(unsafe.Pointer(&timer))); e != 0 {
		return nil
	}
	return []int32{timer}
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
