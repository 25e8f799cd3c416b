package admin

import (
	"reflect"
	"testing"
	"time"

	"github.com/org/watt"
)

func TestFiguresAreWhatCameBetweenTwoLooks(t *testing.T) {
	look := func(n uint64, times map[int]uint64, busy, cpu time.Duration) *watt.Status {
		return &watt.Status{
			App:   watt.App{Name: "orders", Workers: 2, QueueTimeout: 1800 * time.Millisecond},
			State: "ready", BusyTime: busy, DownstreamTime: busy / 2, QueueFull: n, WaitTooLong: n, PushedOut: n, Deadline: n, Gone: 7 * n,
			PerInstance: []watt.InstanceStatus{{
				State: "ready", PID: 7, CPUTime: cpu, Duration: watt.Times{Buckets: times}, QueueWait: watt.Times{Buckets: map[int]uint64{-40: 80 * n}},
				Requests: map[string]map[string]uint64{"GET": {"2xx": 100 * n, "4xx": 30 * n}, "POST": {"5xx": 20 * n}},
			}},
			PerCaller: []watt.CallerStatus{
				{Caller: ""},
				{Caller: "gateway", Errors: map[string]uint64{"timeout": 20 * n, "died": 10 * n, "canceled": 40 * n}, Duration: watt.Times{Count: 100 * n, Sum: time.Duration(n) * 30 * time.Second}},
			},
		}
	}
	// Bucket 0 ends at a second, and four are a doubling.
	before, after := look(1, map[int]uint64{0: 1000}, 3*time.Second, 9*time.Second), look(2, map[int]uint64{-4: 90, 0: 1000, 4: 10}, 19*time.Second, 14*time.Second)
	want := Figures{
		Seconds: 10, Requests: 15, Errors: 2, Shed: 0.4, P50: 0.5, P99: 2, Wait99: 1.8, Service: 1.6 / 15, Utilisation: 0.8, Downstream: 0.4, Saturation: 1, CPU: 0.5,
		Calls: map[string]float64{"": 0, "gateway": 6}, Failed: map[string]float64{"": 0, "gateway": 3}, CallTime: map[string]float64{"": 0, "gateway": 3},
	}
	if got := figuresOf(before, after, 10*time.Second); !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	back := after.PerInstance[0]
	back.Instance, back.State = 1, "starting"
	after.PerInstance = append(after.PerInstance, back)
	if got := figuresOf(before, after, 10*time.Second); !reflect.DeepEqual(got, want) {
		t.Errorf("with an instance that comes back with what it had counted: got %+v", got)
	}
	after.PerInstance = after.PerInstance[:1]
	after.PerInstance[0].State = "restarting"
	if got := figuresOf(before, after, 10*time.Second); got.Utilisation != want.Utilisation {
		t.Errorf("got a utilisation of %v of an instance that has just ended, want %v", got.Utilisation, want.Utilisation)
	}
	after.PerInstance[0].PID = 8
	if got := figuresOf(before, after, 10*time.Second); got.CPU != 0 {
		t.Errorf("got %v processors of a process that has taken the place of another", got.CPU)
	}
}
