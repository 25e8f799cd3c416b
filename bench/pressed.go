package main

import (
	"context"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	wattlib "github.com/org/watt"
)

// What a full run of these does; shorter ones do their share of it.
const (
	pressTime    = time.Minute
	pressEarly   = pressTime / 6 // when memory is looked at first
	pressBusy    = 1.5           // jobs that arrive, of what the processors could do
	pressKeepers = 1             // workers of the keeping app: fewer than the instances have, so that they meet at its queue

	streamBytes = 1 << 30

	retryAfter  = 50 * time.Millisecond
	retryFor    = 20 * time.Second
	keyedBusy   = 0.3 // of the capacity
	longPatient = 10 * time.Second
)

// asking does jobs over one connection each, and says what became of them.
type asking struct {
	url    string
	client *http.Client
}

func newAsking(rt *wattlib.Runtime) *asking {
	transport := newTransport(func(ctx context.Context, address string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "tcp", address)
	})
	transport.DisableKeepAlives = true // so that a connection that has ended is nobody's
	return &asking{"http://" + rt.Status()[0].Addr, &http.Client{Transport: transport}}
}

// reply is what was answered to a job.
type reply struct {
	status int
	worked bool          // it was done, and perhaps not kept
	again  time.Duration // Retry-After
}

// ask has a job done and its result kept, once for its key.
func (a *asking) ask(ctx context.Context, j job, key string) (reply, error) {
	ctx, cancel := context.WithTimeout(ctx, longPatient)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, a.url+j.path(), http.NoBody)
	if err != nil {
		return reply{}, err
	}
	if key != "" {
		req.Header.Set("Idempotency-Key", key)
	}
	resp, err := a.client.Do(req)
	if err != nil {
		return reply{}, err
	}
	defer func() { _ = resp.Body.Close() }()
	_, err = io.Copy(io.Discard, resp.Body)
	seconds, _ := strconv.Atoi(resp.Header.Get("Retry-After"))
	return reply{resp.StatusCode, resp.Header.Get(workedHeader) != "", time.Duration(seconds) * time.Second}, err
}

// outcomes are what became of jobs.
type outcomes struct {
	stored, refused, wasted atomic.Int64 // refused: before the work was done; wasted: after it
	again                   latencies    // Retry-After
	failed                  failures
}

func (o *outcomes) add(r reply, err error) {
	switch {
	case err != nil:
		o.failed.add(err)
	case r.status == http.StatusOK:
		o.stored.Add(1)
	case r.status != http.StatusServiceUnavailable:
		o.failed.add(fmt.Errorf("%w: %d", errWrongAnswer, r.status))
	default:
		if r.worked {
			o.wasted.Add(1)
		} else {
			o.refused.Add(1)
		}
		o.again.add(r.again)
	}
}

// pressed has more jobs arrive than can be done, in front of an app that keeps half of what the instances can do.
func pressed(jobs *jobs) func(context.Context) (session, error) {
	return func(ctx context.Context) (session, error) {
		j := jobs.lasting(jobTime)
		slow := time.Duration(pressKeepers / (rated(jobTime) / 2) * float64(time.Second))
		slowly := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			pause(r.Context(), slow)
			w.WriteHeader(http.StatusOK)
		})
		rt, end, err := startFunnel(ctx, hashers(), slowly, pressKeepers)
		if err != nil {
			return session{}, err
		}
		return session{close: end, measure: func(ctx context.Context, d time.Duration) (sample, error) {
			all := time.Duration(share(d) * float64(pressTime))
			var o outcomes
			var requests sync.WaitGroup
			a := newAsking(rt)
			early := make(chan float64, 1)
			timer := time.AfterFunc(time.Duration(share(d)*float64(pressEarly)), func() { early <- heldBy(rt) })
			defer timer.Stop()
			arrive(ctx, &requests, pressBusy*rated(jobTime), all, func(time.Time) { o.add(a.ask(ctx, j, "")) })
			late := heldBy(rt)
			requests.Wait()
			worked := float64(max(1, o.stored.Load()+o.wasted.Load()))
			value := 100 * float64(o.wasted.Load()) / worked
			return sample{value: value, allocs: math.NaN(), also: []float64{
				value, late / <-early, float64(o.stored.Load()) / all.Seconds(), float64(o.refused.Load()) / all.Seconds(),
				float64(o.wasted.Load()) / all.Seconds(), percentile(append(o.again.all, 0), 0.5) / 1000,
			}}, o.failed.err()
		}}, nil
	}
}

// heldBy returns the resident memory of all processes of a runtime, in MiB.
func heldBy(rt *wattlib.Runtime) float64 {
	all := resident("/proc/self/")
	for _, in := range rt.Status()[0].PerInstance {
		all += resident(fmt.Sprintf("/proc/%d/", in.PID))
	}
	return max(all, 1) // where the system does not tell
}

// repeated has clients repeat their jobs, with their keys, until they are done, while one instance after the other is
// killed. Each must have been kept once.
func repeated(jobs *jobs) func(context.Context) (session, error) {
	return func(ctx context.Context) (session, error) {
		db, drop, err := openDatabase(ctx)
		if err != nil {
			return session{}, err
		}
		hash := hashers()
		hash.Instances = killInstances
		rt, end, err := startFunnel(ctx, hash, keeper(db), 32)
		if err != nil {
			drop()
			return session{}, err
		}
		j := jobs.lasting(shortJob)
		return session{close: func() { end(); drop() }, measure: func(ctx context.Context, d time.Duration) (sample, error) {
			k := &keyed{asking: newAsking(rt), job: j}
			kills, err := k.whileKilling(ctx, rt, share(d))
			if failed := k.failed.err(); failed != nil {
				fmt.Fprintln(os.Stderr, failed)
			}
			failed := float64(len(k.failed.errs))
			if err != nil {
				return sample{}, err
			}
			var once, rows int64
			if err := db.QueryRowContext(ctx, `select count(distinct client), count(*) from sums`).Scan(&once, &rows); err != nil {
				return sample{}, err
			}
			wrong := max(k.sent.Load()-once, rows-once)
			return sample{value: failed, allocs: math.NaN(), also: []float64{
				failed, float64(wrong), float64(k.sent.Load()), float64(k.tries.Load()), float64(kills),
			}}, nil
		}}, nil
	}
}

// keyed are jobs with keys.
type keyed struct {
	*asking
	job         job
	sent, tries atomic.Int64
	failed      failures
}

func (k *keyed) whileKilling(ctx context.Context, rt *wattlib.Runtime, part float64) (kills int, err error) {
	d := time.Duration(part * float64(pressTime))
	ending, stop := context.WithTimeout(ctx, d-killPause/2)
	defer stop()
	var killer, requests sync.WaitGroup
	killer.Go(func() {
		for pause(ending, min(killPause, d/2)); ending.Err() == nil && err == nil; pause(ending, killPause) {
			_, err = killOne(rt, kills)
			kills++
		}
	})
	arrive(ctx, &requests, keyedBusy*rated(shortJob), d, func(time.Time) { k.until(ctx) })
	killer.Wait()
	requests.Wait()
	return kills, err
}

// until repeats a job until it is done.
func (k *keyed) until(ctx context.Context) {
	key := strconv.FormatInt(k.sent.Add(1), 10)
	for began, wait := time.Now(), retryAfter; ; pause(ctx, wait+rand.N(wait)) {
		k.tries.Add(1)
		r, err := k.ask(ctx, k.job, key)
		if err == nil && r.status == http.StatusOK {
			return
		}
		if err == nil {
			err = fmt.Errorf("%w: %d", errWrongAnswer, r.status)
			wait = max(retryAfter, r.again)
		}
		if time.Since(began) > retryFor || ctx.Err() != nil {
			k.failed.add(err)
			return
		}
	}
}

// streaming sends a body through an instance to the app that keeps, which only counts it.
func streaming(ctx context.Context) (session, error) {
	rt, end, err := startFunnel(ctx, hashers(), count(), 4)
	if err != nil {
		return session{}, err
	}
	return session{close: end, measure: func(ctx context.Context, d time.Duration) (sample, error) {
		size := int64(share(d) * streamBytes)
		pids := map[string]float64{"/proc/self/": 0}
		for _, in := range rt.Status()[0].PerInstance {
			pids[fmt.Sprintf("/proc/%d/", in.PID)] = 0
		}
		for dir := range pids {
			pids[dir] = resident(dir)
		}
		watching, stop := context.WithCancel(ctx)
		var watcher sync.WaitGroup
		var more float64
		watcher.Go(func() {
			for ; watching.Err() == nil; pause(watching, 5*time.Millisecond) {
				for dir, before := range pids {
					more = max(more, resident(dir)-before)
				}
			}
		})
		began := time.Now()
		err := stream(ctx, newAsking(rt), size)
		took := time.Since(began)
		stop()
		watcher.Wait()
		mib := float64(size) / (1 << 20)
		return sample{value: more, allocs: math.NaN(), also: []float64{more, mib, mib / took.Seconds()}}, err
	}}, nil
}

// stream posts that many bytes, and has their number confirmed.
func stream(ctx context.Context, a *asking, size int64) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, a.url+"/stream", io.LimitReader(zeros{}, size))
	if err != nil {
		return err
	}
	resp, err := a.client.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	if got, err := io.ReadAll(resp.Body); err != nil || string(got) != strconv.FormatInt(size, 10) {
		return fmt.Errorf("%w: %s %q, %w", errWrongAnswer, resp.Status, got, err)
	}
	return nil
}

// zeros is a reader without end.
type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}
