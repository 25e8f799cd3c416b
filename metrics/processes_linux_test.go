package metrics_test

import (
	"fmt"
	"net"
	"syscall"
	"testing"
	"time"

	"github.com/org/watt/watttest"
)

func TestOwnProcessesShowWithoutBeingAsked(t *testing.T) {
	rt := mills()
	top := watttest.Start(t, rt)
	for range 20 {
		get(t, top.URL("mill")+"/sell")
	}
	total := func(s samples, name, more string) (n float64) {
		for i := range 2 {
			if m := s.has(name, fmt.Sprintf(`%swatt_app="mill",watt_instance="%d"`, more, i)); m != nil {
				n += m.GetCounter().GetValue() + m.GetGauge().GetValue()
			}
		}
		return n
	}
	soon(t, "20 requests", func() bool { return total(scrape(t, rt), "watt_requests_total", `method="GET",status="2xx",`) == 20 })
	got := scrape(t, rt)
	if n := total(got, "orders_sold_total", ""); n != 20 {
		t.Errorf("got %v of the app's own, want 20", n)
	}
	if n := total(got, "watt_instance_resident_memory_bytes", ""); n < 1<<20 {
		t.Errorf("got %v bytes of memory", n)
	}
	if n := total(got, "watt_listener_accepted_total", ""); n < 20 {
		t.Errorf("got %v accepted connections", n)
	}
	soon(t, "processor time", func() bool { // which the system counts in hundredths of a second
		get(t, top.URL("mill")+"/nothing")
		return total(scrape(t, rt), "watt_instance_cpu_seconds_total", "") > 0
	})

	if n := got.value(t, "watt_connections_limit", `watt_app="mill"`); n != float64(2*rt.Status()[0].MaxConns) {
		t.Errorf("MaxConns counts %v, want that of both", n)
	}
	if n := got.value(t, "watt_queue_capacity", `watt_app="mill"`); n != float64(2*rt.Status()[0].Queue) {
		t.Errorf("got %v requests that may wait, want those of two queues of %d", n, rt.Status()[0].Queue)
	}

	held, err := net.Dial("tcp", rt.Status()[0].Addr)
	if err != nil {
		t.Fatal(err)
	}
	defer held.Close()
	fmt.Fprint(held, "POST /copy HTTP/1.1\r\nHost: mill\r\nContent-Length: 1\r\n\r\n")
	soon(t, "what comes to the busy instance to be served by the other", func() bool {
		get(t, top.URL("mill")+"/nothing")
		return total(scrape(t, rt), "watt_requests_handed_over_total", "") > 0
	})
	fmt.Fprint(held, "x")

	stopped := rt.Status()[0].PerInstance[1].PID
	if err := syscall.Kill(stopped, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	defer syscall.Kill(stopped, syscall.SIGCONT)
	soon(t, "the instance to be silent, and passed over", func() bool {
		s := rt.Status()[0]
		return s.PerInstance[1].State == "silent" && !s.PerListener[1].Chosen
	})
	began := time.Now()
	got = scrape(t, rt)
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("a scrape with a stopped process took %v", took)
	}
	if n := got.value(t, "watt_instance_up", `watt_app="mill",watt_instance="1"`); n != 0 {
		t.Error("the stopped instance is up")
	}
	for i, chosen := range []float64{1, 0} {
		labels := fmt.Sprintf(`watt_app="mill",watt_instance="%d"`, i)
		if n := got.value(t, "watt_listener_chosen", labels); n != chosen {
			t.Errorf("instance %d: got %v as chosen for new connections, want %v", i, n, chosen)
		}
		got.find(t, "watt_listener_backlog", labels)
	}
	if got.value(t, "watt_instance_state", `state="silent",watt_app="mill",watt_instance="1"`) != 1 {
		t.Error("the stopped instance is not silent")
	}
	if got.has("orders_sold_total", `watt_app="mill",watt_instance="1"`) != nil || got.has("orders_sold_total", `watt_app="mill",watt_instance="0"`) == nil {
		t.Error("want the samples of the running instance, and not of the stopped one")
	}

	other := rt.Status()[0].PerInstance[0].PID
	if err := syscall.Kill(other, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	defer syscall.Kill(other, syscall.SIGCONT)
	soon(t, "nobody to be left", func() bool { return rt.Status()[0].State == "silent" })
	for range 5 { // of which the first process may have taken some
		conn, err := net.Dial("tcp", rt.Status()[0].Addr)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
	}
	soon(t, "connections that wait", func() bool { return total(scrape(t, rt), "watt_listener_backlog", "") > 0 })
}
