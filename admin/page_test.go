//go:build chromium

package admin_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	cdpruntime "github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"

	"github.com/org/watt"
	"github.com/org/watt/admin"
	"github.com/org/watt/funnel"
	"github.com/org/watt/pyramid"
)

// These tests need Chromium, which most machines do not have: go test -tags chromium ./admin. With SCREENSHOT set, the
// page is written there.

// system is a pyramid and a funnel, in front of a store that is too slow for what comes.
func system() *watt.Runtime {
	slow := http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		select {
		case <-time.After(100 * time.Millisecond):
		case <-r.Context().Done():
		}
	})
	resize, store := funnel.New(
		watt.App{Name: "resize", New: passOn("store"), Workers: 4, Isolation: watt.InProcess},
		watt.App{Name: "store", Handler: slow, Workers: 2, Queue: 4},
	)
	return watt.New(pyramid.New(
		watt.App{Name: "gateway", Listen: "127.0.0.1:0", New: func(_ context.Context, env *watt.Env) (http.Handler, error) {
			mux := http.NewServeMux()
			mux.Handle("/users/", pyramid.Proxy(env, "users"))
			mux.Handle("/orders/", pyramid.Proxy(env, "orders"))
			mux.Handle("/pictures/", pyramid.Proxy(env, "resize"))
			mux.Handle("/support/", pyramid.Proxy(env, "support"))
			mux.Handle("/", pyramid.Proxy(env, "store"))
			return mux, nil
		}},
		watt.App{Name: "users", Handler: http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}), Instances: 2},
		watt.App{Name: "orders", New: passOn("store"), Calls: []string{"store"}},
		resize, store,
		watt.App{Name: "support", DrainTimeout: 100 * time.Millisecond, Handler: http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			<-r.Context().Done()
		})},
	)...)
}

// serve starts the system with its admin side at addr, and with load on it. The system ends with stop.
func serve(t *testing.T, addr string) (url string, stop func()) {
	t.Helper()
	rt := system()
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	rt.Listen = func(ctx context.Context, network, at string) (net.Listener, error) {
		if at == ln.Addr().String() {
			return ln, nil
		}
		return new(net.ListenConfig).Listen(ctx, network, at)
	}
	rt.Admin = &http.Server{Addr: ln.Addr().String(), Handler: admin.Handler(rt, admin.Options{Token: token})}
	if err := rt.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var load sync.WaitGroup
	for path, visitors := range map[string]int{"/users/": 1, "/orders/": 2, "/pictures/": 12, "/": 2} {
		for range visitors {
			load.Go(func() { visit(ctx, "http://"+rt.Status()[0].Addr+path) })
		}
	}
	return "http://" + ln.Addr().String(), sync.OnceFunc(func() {
		cancel()
		load.Wait()
		if err := rt.Shutdown(context.Background()); err != nil {
			t.Error(err)
		}
	})
}

func visit(ctx context.Context, url string) {
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for ctx.Err() == nil {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
		if err != nil {
			return
		}
		if resp, err := client.Do(req); err == nil {
			resp.Body.Close()
		}
		<-tick.C
	}
}

// browser is a tab of a browser.
func browser(t *testing.T) context.Context {
	t.Helper()
	options := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.NoSandbox)
	ctx, stop := chromedp.NewExecAllocator(context.Background(), options...)
	t.Cleanup(stop)
	ctx, stop = chromedp.NewContext(ctx)
	t.Cleanup(stop)
	failures := chromedp.Events(ctx, cdpruntime.ExceptionThrown)
	go func() {
		for e, err := range failures {
			if err == nil {
				t.Errorf("the page has failed: %+v", e.ExceptionDetails)
			}
		}
	}()
	return ctx
}

type step = chromedp.Action[chromedp.Void]

func run(t *testing.T, ctx context.Context, steps ...step) {
	t.Helper()
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for i, s := range steps {
		if err := chromedp.Do(ctx, s); err != nil {
			t.Fatalf("step %d: %v", i, err)
		}
	}
}

// holds waits until an expression of JavaScript is true.
func holds(expression string) step {
	return without(chromedp.Poll[bool](expression, chromedp.WithPollingTimeout(40*time.Second), chromedp.WithPollingInterval(100*time.Millisecond)))
}

// without does something whose value nobody needs.
func without[T any](a chromedp.Action[T]) step {
	return func(ctx context.Context, target *chromedp.Target) (chromedp.Void, error) {
		_, err := a(ctx, target)
		return chromedp.Void{}, err
	}
}

// evaluate returns what an expression of JavaScript is.
func evaluate[T any](t *testing.T, ctx context.Context, expression string) T {
	t.Helper()
	v, err := chromedp.Run(ctx, chromedp.Evaluate[T](expression))
	if err != nil {
		t.Fatalf("%s: %v", expression, err)
	}
	return v
}

// js has JavaScript done.
func js(statement string) step {
	return without(chromedp.Evaluate[bool](statement + ", true"))
}

// scheme has the browser prefer dark or light pages.
func scheme(name string) step {
	features := []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: name}}
	return func(ctx context.Context, target *chromedp.Target) (chromedp.Void, error) {
		_, err := cdp.Call(ctx, target, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Features: features})
		return chromedp.Void{}, err
	}
}

func TestThePageShowsWhatIsWrong(t *testing.T) {
	url, stop := serve(t, "127.0.0.1:0")
	defer stop()
	tab := browser(t)
	run(t, tab, chromedp.EmulateViewport(1600, 1200), chromedp.Navigate(url),
		holds(`document.querySelectorAll('#picture a').length === 6`),
		holds(`document.querySelectorAll('#apps tr').length === 6`),
		holds(`document.querySelectorAll('#charts canvas').length === 4`),
		holds(`document.querySelector('#picture .box.hot') !== null`),
		holds(`[...document.querySelectorAll('#advice li')].some(li => li.textContent.startsWith('store: '))`),
		holds(`[...document.querySelectorAll('#picture .flow')].some(f => /^clients → gateway \d+\/s served/.test(f.textContent))`),
		holds(`[...document.querySelectorAll('#picture .flow')].some(f => /→ store .*served .*shed/.test(f.textContent))`),
	)
	if file := os.Getenv("SCREENSHOT"); file != "" {
		run(t, tab, holds(`performance.now() > 25000`))
		picture, err := chromedp.Run(tab, chromedp.FullScreenshot(100))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, picture, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, width := range []int64{390, 1600} {
		run(t, tab, chromedp.EmulateViewport(width, 900), // the picture follows a moment later
			holds(fmt.Sprintf(`innerWidth === %d && document.documentElement.scrollWidth <= innerWidth`, width)))
	}
	for name, paper := range map[string]string{"dark": "rgb(21, 23, 26)", "light": "rgb(251, 251, 250)"} {
		run(t, tab, scheme(name))
		got := evaluate[string](t, tab, `getComputedStyle(document.body).backgroundColor`)
		if got != paper {
			t.Errorf("%s: got %s, want %s", name, got, paper)
		}
	}
}

// TestTheTableShowsTheFigures gives the page a report, and has it drawn.
func TestTheTableShowsTheFigures(t *testing.T) {
	report, err := json.Marshal(admin.Report{Time: time.Now(), Apps: []admin.App{{
		Status: watt.Status{
			App: watt.App{Name: "store", Workers: 4, Queue: 64}, State: "ready", Busy: 3, Queued: 5,
			PerInstance: []watt.InstanceStatus{{State: "ready", Restarts: map[string]uint64{"ended": 2, "killed": 1, "start": 4, "asked": 8}}},
		},
		Now: admin.Figures{Requests: 100, Errors: 4, Shed: 7, P50: 0.05, P99: 0.2, Wait99: 0.03, Utilisation: 0.95},
	}}})
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.Handle("/", admin.Handler(system(), admin.Options{}))
	mux.HandleFunc("/events", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		fmt.Fprintf(w, "data: %s\n\n", report)
		http.NewResponseController(w).Flush()
		<-r.Context().Done()
	})
	server := httptest.NewServer(mux)
	tab := browser(t)
	defer server.Close()
	defer server.CloseClientConnections()
	run(t, tab, chromedp.Navigate(server.URL), holds(`document.querySelector('#apps td') !== null`))
	got := evaluate[[]string](t, tab, `[...document.querySelectorAll('#apps th, #apps td')].map(cell => cell.textContent)`)
	want := []string{"store", "ready", "96", "7.0", "4.0", "50 ms", "200 ms", "30 ms", "3 / 4", "95 %", "5 / 64", "7"}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestThePictureCanBeRead(t *testing.T) {
	url, stop := serve(t, "127.0.0.1:0")
	defer stop()
	tab := browser(t)
	run(t, tab, chromedp.EmulateViewport(1600, 900), chromedp.Navigate(url),
		holds(`document.querySelectorAll('#picture .flow').length >= 7 && document.querySelector('.flow .fails') !== null`))
	hidden := evaluate[[]string](t, tab, `(() => {
		const over = (a, b) => Math.min(a.right, b.right) - Math.max(a.left, b.left) > 1 && Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top) > 1
		const all = [...document.querySelectorAll('#picture .flow, #picture .box')].map(e => [e.textContent, e.getBoundingClientRect()])
		return all.flatMap(([text, at], i) => all.slice(i + 1).filter(b => over(at, b[1])).map(b => text + ' on ' + b[0]))
	})()`)
	if len(hidden) > 0 {
		t.Errorf("it lies on each other: %q", hidden)
	}
	lost := evaluate[int](t, tab, `(() => {
		const boxes = [...document.querySelectorAll('#picture .box')].map(b => b.getBoundingClientRect())
		const ends = [...document.querySelectorAll('#picture .edge')].map(e => e.getPointAtLength(e.getTotalLength()).matrixTransform(e.getScreenCTM()))
		return ends.filter(p => !boxes.some(b => Math.abs(b.left + b.width / 2 - p.x) < 2 && Math.abs(b.top - p.y) < 4)).length
	})()`)
	if lost > 0 {
		t.Errorf("%d arrows do not end at a box", lost)
	}
	run(t, tab, chromedp.EmulateViewport(390, 844), holds(`document.querySelector('#picture .list') !== null`))
	first := evaluate[string](t, tab, `document.querySelector('#picture .box').className`)
	outside := evaluate[int](t, tab, `[...document.querySelectorAll('#picture .box, #picture .flow')].map(e => e.getBoundingClientRect()).filter(r => r.left < 0 || r.right > 390).length`)
	if outside > 0 || first != "box hot" {
		t.Errorf("on a small screen: %d parts are out of sight, and the first is a %q", outside, first)
	}
}

func TestAnAppKeepsItsColourInTheCharts(t *testing.T) {
	url, stop := serve(t, "127.0.0.1:0")
	defer stop()
	tab := browser(t)
	run(t, tab, scheme("light"), chromedp.Navigate(url), holds(`document.querySelectorAll('#charts canvas').length === 4`))
	const colours = `[...document.querySelectorAll('#charts .u-series')].map(s => s.textContent + s.querySelector('.u-marker')?.style.borderColor)`
	before := evaluate[[]string](t, tab, colours)
	run(t, tab, holds(`performance.now() > 7000`), scheme("dark"), holds(`getComputedStyle(document.body).backgroundColor === 'rgb(21, 23, 26)'`))
	if after := evaluate[[]string](t, tab, colours); !slices.Equal(before, after) {
		t.Errorf("got %q, want %q", after, before)
	}
}

func TestAnAppIsShownWhereItCanBeSeen(t *testing.T) {
	url, stop := serve(t, "127.0.0.1:0")
	defer stop()
	seen := `(() => { const r = document.getElementById('limits').getBoundingClientRect(); return r.height > 0 && r.top >= 0 && r.bottom <= innerHeight })()`
	run(t, browser(t), chromedp.EmulateViewport(1600, 900), chromedp.Navigate(url),
		holds(`document.querySelector('#picture a[href="#store"]') !== null`),
		js(`document.querySelector('#picture a[href="#store"]').click()`),
		holds(seen),
		holds(`/^Shed: .*(queue full|waited too long|pushed out)/.test(document.getElementById('shed').textContent)`),
		js(`scrollTo(0, 0)`),
		js(`document.querySelector('#apps button[data-app=store]').click()`), // once more
		holds(seen),
	)
}

func TestThePageSurvivesARestartOfTheProgram(t *testing.T) {
	url, stop := serve(t, "127.0.0.1:0")
	tab := browser(t)
	run(t, tab, chromedp.Navigate(url), holds(`document.getElementById('health').textContent === 'Ready'`))
	stop()
	run(t, tab, holds(`document.getElementById('health').textContent.startsWith('No connection')`))
	_, stop = serve(t, strings.TrimPrefix(url, "http://"))
	defer stop()
	run(t, tab, holds(`document.getElementById('health').textContent === 'Ready'`))
}

func TestAnActionAsksForTheToken(t *testing.T) {
	url, stop := serve(t, "127.0.0.1:0")
	defer stop()
	tab := browser(t)
	did := func(text string) step {
		return holds(`document.getElementById('did').textContent.includes('` + text + `')`)
	}
	run(t, tab, chromedp.Navigate(url),
		holds(`document.querySelector('#apps button') !== null`),
		js(`location.hash = 'users'`),
		holds(`document.querySelectorAll('#instances button').length === 4`),
		js(`document.querySelector('#instances button').click()`),
		holds(`document.getElementById('ask').open`),
		chromedp.SendKeys(chromedp.CSS(`#ask input`), "wrong\r"),
		holds(`document.getElementById('ask').open && document.querySelector('#ask input').value === ''`),
		chromedp.SendKeys(chromedp.CSS(`#ask input`), token+"\r"),
		did("was restarted"),
		js(`document.querySelector('#instances button[data-act="drain 1"]').click()`),
		did("was drained"),
		holds(`document.querySelector('#instances .badge')?.textContent === 'drained'`),
		holds(`document.querySelector('#picture a[href="#users"]').textContent.includes('1 drained')`),
		chromedp.SetValue(chromedp.CSS(`#limits input[name=workers]`), "7"),
		js(`document.querySelector('#limits button').click()`),
		did("were changed"),
		holds(`document.querySelector('#apps tr[data-app=users]').textContent.includes('/ 7')`),
	)
}

// TestTheFormOfLimitsShowsWhatIsInForce: also what others have set, but for what somebody is typing.
func TestTheFormOfLimitsShowsWhatIsInForce(t *testing.T) {
	url, stop := serve(t, "127.0.0.1:0")
	defer stop()
	set := func(name, value string) step {
		return chromedp.SetValue(chromedp.CSS(`#limits input[name=`+name+`]`), value)
	}
	shows := func(name, value string) step {
		return holds(`document.querySelector('#limits input[name=` + name + `]').value === '` + value + `'`)
	}
	inForce := func(limit string) step {
		return holds(`document.querySelector('#apps tr[data-app=store]').textContent.includes('` + limit + `')`)
	}
	change := js(`document.querySelector('#limits button').click()`)
	says := func(text string) step { // and is silent then
		return holds(`document.getElementById('did').textContent.endsWith('` + text + `') && !(document.getElementById('did').textContent = '')`)
	}
	changed := says("were changed")
	another := func(limits string) step {
		return js(`fetch('apps/store', { method: 'PATCH', body: '` + limits + `', headers: { Authorization: 'Bearer ` + token + `' } })`)
	}
	run(t, browser(t), chromedp.Navigate(url+"#store"), js(`sessionStorage.setItem('watt-token', '`+token+`')`), shows("workers", "2"),
		set("workers", "6"), change, changed, inForce("/ 6"),
		set("workers", "3"), change, changed, // and back before a report can have come
		set("workers", "6"), change, changed,
		another(`{"workers": 5}`), shows("workers", "5"),
		another(`{"workers": 7}`), set("queue", "9"), change, changed, inForce("/ 9"), inForce("/ 7"), // the queue alone was sent
		set("workers", "8"), another(`{"workers": 4, "queue": 3}`), shows("queue", "3"), shows("workers", "8"),
		set("workers", "4"), change, says("nothing was changed: these are the limits of store"),
	)
}

func TestThePageSaysWhatADrainHadToCut(t *testing.T) {
	url, stop := serve(t, "127.0.0.1:0")
	defer stop()
	tab := browser(t)
	run(t, tab, chromedp.Navigate(url+"#support"), js(`sessionStorage.setItem('watt-token', '`+token+`')`),
		js(`fetch('status').then(r => r.json()).then(r => { window.gateway = r.Apps[0].Addr })`), holds(`window.gateway !== undefined`))
	gateway := evaluate[string](t, tab, `window.gateway`)
	var call sync.WaitGroup
	defer call.Wait()
	call.Go(func() {
		if resp, err := http.Get("http://" + gateway + "/support/"); err == nil {
			resp.Body.Close()
		}
	})
	run(t, tab, holds(`document.querySelector('#instances').textContent.includes('1 busy')`),
		js(`document.querySelector('#instances button[data-act="drain 0"]').click()`),
		holds(`/^instance 0 of support was drained; .*1 request or connection was cut/.test(document.getElementById('did').textContent)`))
}

// TestATokenThatFailsIsForgotten: quotation marks of a word processor cannot even be sent.
func TestATokenThatFailsIsForgotten(t *testing.T) {
	url, stop := serve(t, "127.0.0.1:0")
	defer stop()
	restart := js(`document.querySelector('#instances button').click()`)
	run(t, browser(t), chromedp.Navigate(url+"#users"),
		holds(`document.querySelector('#instances button') !== null`),
		restart,
		holds(`document.getElementById('ask').open`),
		js(`(document.querySelector('#ask input').value = '\u201copen sesame\u201d', document.querySelector('#ask button').click())`),
		holds(`document.getElementById('did').textContent.startsWith('Not done')`),
		restart,
		holds(`document.getElementById('ask').open`),
	)
}

// TestThePageCanBeUsedByKeyboard goes to an app, and comes back with the focus where it was although everything is
// drawn anew.
func TestThePageCanBeUsedByKeyboard(t *testing.T) {
	url, stop := serve(t, "127.0.0.1:0")
	defer stop()
	tab := browser(t)
	run(t, tab, chromedp.Navigate(url), holds(`document.querySelector('#apps button') !== null`),
		js(`document.querySelector('#apps button[data-app=store]').focus()`),
		chromedp.KeyEvent("\r"),
		holds(`document.getElementById('app-title').textContent.startsWith('store')`),
		holds(`performance.now() > 4000`), // some drawings later
		holds(`document.activeElement.dataset.app === 'store'`),
	)
	unnamed := evaluate[int](t, tab, `[...document.querySelectorAll('button, input, svg a, section, [role=img]')].filter(e =>
		!(e.textContent.trim() || e.getAttribute('aria-label') || e.getAttribute('aria-labelledby') || e.labels?.length)).length`)
	if unnamed > 0 {
		t.Errorf("%d parts of the page have no name", unnamed)
	}
}
