package watt_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"

	"github.com/org/watt"
)

// Two apps, of which one has a port, and calls the other by name.
func Example() {
	newWeb := func(_ context.Context, env *watt.Env) (http.Handler, error) {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			u, err := watt.JSON[struct{ Name string }](env.Get(r.Context(), "http://users.watt.local/7"))
			if err != nil {
				watt.WriteError(w, err)
				return
			}
			fmt.Fprintf(w, "Hello, %s!", u.Name)
		}), nil
	}
	serveUser := func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, `{"name": "Ada"}`) }

	rt := watt.New(
		watt.App{Name: "web", Listen: "127.0.0.1:0", Calls: []string{"users"}, New: newWeb},
		watt.App{Name: "users", Handler: http.HandlerFunc(serveUser)},
	)
	ctx, stop := context.WithCancel(context.Background()) // a program's main has signal.NotifyContext here
	defer stop()
	if err := rt.Start(ctx); err != nil { // most programs leave that to Run
		fmt.Println(err)
		return
	}
	resp, err := rt.Env().Get(ctx, "http://web.watt.local/")
	if err != nil {
		fmt.Println(err)
		return
	}
	body, _ := io.ReadAll(resp.Body)
	resp.Body.Close()
	stop()
	fmt.Printf("%s %v\n", body, rt.Run(ctx))
	// Output: Hello, Ada! <nil>
}

// Start and Shutdown are the two halves of Run, for tests and for programs with a life of their own.
func ExampleRuntime_Start() {
	rt := watt.New(watt.App{Name: "hello", Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "hello %q", watt.Caller(r.Context()))
	})})
	if err := rt.Start(context.Background()); err != nil {
		fmt.Println(err)
		return
	}
	resp, err := rt.Env().Get(context.Background(), "http://hello.watt.local/")
	if err == nil {
		body, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		fmt.Printf("%s\n", body)
	}
	fmt.Println(rt.Shutdown(context.Background()))
	// Output:
	// hello ""
	// <nil>
}

// JSON makes an error of every answer but 2xx, and WriteError answers with what belongs to it.
func ExampleJSON() {
	rt := watt.New(
		watt.App{Name: "web", Calls: []string{"users"}, New: func(_ context.Context, env *watt.Env) (http.Handler, error) {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				u, err := watt.JSON[struct{ Name string }](env.Get(r.Context(), "http://users.watt.local"+r.URL.Path))
				if err != nil {
					watt.WriteError(w, err)
					return
				}
				io.WriteString(w, u.Name)
			}), nil
		}},
		watt.App{Name: "users", Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path != "/7" {
				http.NotFound(w, r)
				return
			}
			io.WriteString(w, `{"name": "Ada"}`)
		})},
	)
	if err := rt.Start(context.Background()); err != nil {
		fmt.Println(err)
		return
	}
	defer rt.Shutdown(context.Background())
	for _, user := range []string{"7", "8"} {
		resp, err := rt.Env().Get(context.Background(), "http://web.watt.local/"+user)
		if err != nil {
			fmt.Println(err)
			return
		}
		fmt.Println(resp.Status)
		resp.Body.Close()
	}
	// Output:
	// 200 OK
	// 404 Not Found
}

// A long poll gives its worker back while it waits.
func ExampleLongLived() {
	news := make(chan string, 1)
	rt := watt.New(watt.App{Name: "news", Workers: 1, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPost {
			news <- "it rains"
			return
		}
		watt.LongLived(r.Context())
		select {
		case n := <-news:
			io.WriteString(w, n)
		case <-r.Context().Done(): // also when the app's drain begins
		}
	})})
	if err := rt.Start(context.Background()); err != nil {
		fmt.Println(err)
		return
	}
	defer rt.Shutdown(context.Background())
	go func() {
		resp, err := rt.Env().Client.Post("http://news.watt.local/", "", http.NoBody) // runs beside the poll
		if err == nil {
			resp.Body.Close()
		}
	}()
	resp, err := rt.Env().Get(context.Background(), "http://news.watt.local/")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer resp.Body.Close()
	body, _ := io.ReadAll(resp.Body)
	fmt.Printf("%s\n", body)
	// Output: it rains
}

// An app may bring its own server. What that has not answered when Serve returns is cut, so Serve waits for Shutdown, which
// [http.Server.Serve] does not.
func ExampleApp_serve() {
	legacy := func(ctx context.Context, _ *watt.Env, ln net.Listener) error {
		server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			fmt.Fprintf(w, "%s has no port\n", r.Host)
		})}
		shut := make(chan error, 1)
		context.AfterFunc(ctx, func() { shut <- server.Shutdown(context.Background()) }) // DrainTimeout bounds it
		if err := server.Serve(ln); !errors.Is(err, http.ErrServerClosed) {
			return err
		}
		return <-shut
	}
	rt := watt.New(watt.App{Name: "legacy", Serve: legacy})
	if err := rt.Start(context.Background()); err != nil {
		fmt.Println(err)
		return
	}
	defer rt.Shutdown(context.Background())
	resp, err := rt.Env().Get(context.Background(), "http://legacy.watt.local/")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer resp.Body.Close()
	answer, _ := io.ReadAll(resp.Body)
	fmt.Print(string(answer))
	// Output: legacy.watt.local has no port
}

// An app that speaks something else than HTTP gets a listener, and its callers raw connections.
func ExampleEnv_Dial() {
	shout := func(ctx context.Context, _ *watt.Env, ln net.Listener) error {
		context.AfterFunc(ctx, func() { ln.Close() })
		for {
			conn, err := ln.Accept()
			if err != nil {
				return nil //nolint:nilerr // the listener is closed
			}
			line, _ := bufio.NewReader(conn).ReadString('\n')
			fmt.Fprintf(conn, "%s, you say?\n", line[:len(line)-1])
			conn.Close()
		}
	}
	rt := watt.New(watt.App{Name: "shout", Serve: shout})
	if err := rt.Start(context.Background()); err != nil {
		fmt.Println(err)
		return
	}
	defer rt.Shutdown(context.Background())
	conn, err := rt.Env().Dial(context.Background(), "shout")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer conn.Close()
	fmt.Fprintln(conn, "Hello")
	answer, _ := io.ReadAll(conn)
	fmt.Print(string(answer))
	// Output: Hello, you say?
}

// All limits can be changed while the runtime runs.
func ExampleRuntime_Update() {
	rt := watt.New(watt.App{Name: "users", Handler: http.NotFoundHandler()})
	if err := rt.Start(context.Background()); err != nil {
		fmt.Println(err)
		return
	}
	defer rt.Shutdown(context.Background())
	fmt.Println(rt.Update("users", func(a *watt.App) { a.Workers = 128 }))
	fmt.Println(rt.Update("users", func(a *watt.App) { a.Listen = ":80" }))
	fmt.Println(rt.Status()[0].Workers)
	// Output:
	// <nil>
	// watt: app "users": Listen: cannot change while the runtime runs
	// 128
}
