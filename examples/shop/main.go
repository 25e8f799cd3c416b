// Command shop is a small web shop in one program, a pyramid and a funnel at once: a gateway in front of users, orders
// and resize, which makes thumbnails in a process per processor; all of them keep their data in store. In support
// customers talk.
//
//	go run ./examples/shop [-addr 127.0.0.1:8080] [-pictures-addr 127.0.0.1:8081] [-data DIR]
//	SHOP_TOKEN=secret go run ./examples/shop -admin 127.0.0.1:9090 -load [-slow-store 50ms] [-trace 127.0.0.1:4318]
//
// With -admin there is a page at that address which shows what goes on, and with -load something does. Actions there
// need the token that is in SHOP_TOKEN: export it, and paste those that the shop prints. With -trace, a collector of
// OpenTelemetry at that address gets traces.
//
// Clients sign in with tokens that are signed with the key in SHOP_KEY. If there is none, the tokens of this run end
// with it.
package main

import (
	"context"
	"crypto/rand"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/org/watt"
	"github.com/org/watt/admin"
	"github.com/org/watt/examples/shop/orders"
	"github.com/org/watt/examples/shop/resize"
	"github.com/org/watt/examples/shop/store"
	"github.com/org/watt/examples/shop/support"
	"github.com/org/watt/examples/shop/users"
	"github.com/org/watt/funnel"
	"github.com/org/watt/pyramid"
)

//go:generate go run testdata/mandelbrot.go

type config struct {
	addr, pictures, admin, trace, data string
	key                                []byte // of what clients sign in with
	token                              string // that actions need
	load                               bool
	slow                               time.Duration // that store takes more
}

func main() {
	c := config{key: []byte(os.Getenv("SHOP_KEY")), token: os.Getenv("SHOP_TOKEN")}
	flag.StringVar(&c.addr, "addr", "127.0.0.1:8080", "public address")
	flag.StringVar(&c.pictures, "pictures-addr", "", "address at which resize takes pictures past the gateway; none if empty")
	flag.StringVar(&c.admin, "admin", "", "address of the page for those who run the shop; none if empty")
	flag.StringVar(&c.trace, "trace", "", "address of a collector that takes traces by OTLP over HTTP; none if empty")
	flag.BoolVar(&c.load, "load", false, "visit the shop all the time, to see what happens")
	flag.DurationVar(&c.slow, "slow-store", 0, "time that store takes more for each request, to see what happens")
	flag.StringVar(&c.data, "data", ".", "directory of the database")
	flag.Parse()
	if flag.NArg() > 0 {
		fmt.Fprintf(os.Stderr, "shop: unexpected argument %q\n", flag.Arg(0))
		os.Exit(2)
	}
	if len(c.key) == 0 {
		c.key = []byte(rand.Text())
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second Ctrl-C ends the program at once

	rt := newShop(c)
	flush, err := trace(rt, c.trace)
	if err == nil {
		err = run(ctx, rt, os.Stdout, c.load)
		flush()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "shop:", err)
		os.Exit(1)
	}
}

// newShop describes the shop; its test starts the same, and so do the processes of resize.
func newShop(c config) *watt.Runtime {
	thumbnails, data := funnel.New(
		watt.App{Name: "resize", New: resize.New, Listen: c.pictures},
		watt.App{Name: "store", New: store.New(filepath.Join(c.data, "shop.db"), c.slow), Workers: store.Connections},
	)
	most := perMinute
	if c.load {
		most = 1000 * perMinute // the shop is its own best client
	}
	rt := watt.New(pyramid.New(
		watt.App{Name: "gateway", New: newGateway(c.key, most), Listen: c.addr}, // may call all that follow
		watt.App{Name: "users", New: users.New, Calls: []string{"store"}},
		watt.App{Name: "orders", New: orders.New, Calls: []string{"store"}},
		thumbnails,
		data,
		watt.App{Name: "support", New: support.New},
	)...)
	level := zap.NewAtomicLevelAt(zap.WarnLevel)
	logs := &admin.Logs{Level: level}
	rt.Logger, rt.Level, rt.Output = newLogger(level, logs), &level, logs.Output
	if c.admin != "" {
		rt.Admin = &http.Server{
			Addr: c.admin, ReadHeaderTimeout: time.Second,
			Handler: admin.Handler(rt, admin.Options{Token: c.token, Logs: logs, CPUShares: true, FlightRecorder: true}),
		}
	}
	return rt
}

// run runs the shop until ctx ends, under load if it is to be, and tells out how to reach it.
func run(ctx context.Context, rt *watt.Runtime, out io.Writer, load bool) error {
	switch err := rt.Start(ctx); {
	case errors.Is(err, context.Canceled):
		return nil // Ctrl-C came first
	case err != nil:
		return err
	}
	url := "http://" + rt.Status()[0].Addr
	fmt.Fprintln(out, usage(url))
	if rt.Admin != nil {
		fmt.Fprintln(out, actions("http://"+rt.Admin.Addr))
	}
	if load {
		visit(ctx, url)
	}
	<-ctx.Done()
	return rt.Shutdown(context.WithoutCancel(ctx))
}

// usage is what to paste into a shell in the repository's root.
func usage(url string) string {
	return strings.ReplaceAll(`The shop is at URL (Ctrl-C ends it), and says at URL/docs what it answers. Try:

  curl URL/users/1
  curl 'URL/orders?user=1'
  TOKEN=$(curl -d user=1 URL/token)
  curl -H "Authorization: Bearer $TOKEN" URL/orders/mine
  curl URL/home/1
  curl -H 'Idempotency-Key: "1"' --data-binary @examples/shop/testdata/mandelbrot.jpg 'URL/pictures?user=1'
  curl URL/pictures/1
  curl -o thumbnail.jpg URL/pictures/1/256
  curl -N URL/support/feed
`, "URL", url)
}

// actions is how to change the shop while it runs.
func actions(url string) string {
	return strings.ReplaceAll(`The page of those who run it is at URL. If the shop was started with a token in SHOP_TOKEN, they may also:

  curl -X PATCH -H "Authorization: Bearer $SHOP_TOKEN" -d '{"workers": 16}' URL/apps/store
  curl -X POST -H "Authorization: Bearer $SHOP_TOKEN" URL/apps/resize/instances/0/drain
  curl -X POST -H "Authorization: Bearer $SHOP_TOKEN" URL/apps/resize/instances/0/restart
  curl -X PUT -H "Authorization: Bearer $SHOP_TOKEN" -d '{"level": "info", "for": "10m"}' URL/level
`, "URL", url)
}

// newLogger writes what level lets through to stderr, for people, and to the page.
func newLogger(level zap.AtomicLevel, logs *admin.Logs) *zap.Logger {
	c := zap.NewDevelopmentConfig()
	c.Level = level
	c.DisableStacktrace = true
	return zap.Must(c.Build(zap.WrapCore(func(stderr zapcore.Core) zapcore.Core { return zapcore.NewTee(stderr, logs) })))
}
