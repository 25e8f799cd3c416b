// Command shop is a small web shop in one program: a gateway in front of users, orders and resize,
// which makes thumbnails; all of them keep their data in store.
//
//	go run ./examples/shop [-addr 127.0.0.1:8080] [-data DIR]
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"go.uber.org/zap"

	"github.com/org/watt"
	"github.com/org/watt/examples/shop/orders"
	"github.com/org/watt/examples/shop/resize"
	"github.com/org/watt/examples/shop/store"
	"github.com/org/watt/examples/shop/users"
)

//go:generate go run testdata/mandelbrot.go

type config struct{ addr, data string }

func main() {
	var c config
	flag.StringVar(&c.addr, "addr", "127.0.0.1:8080", "public address")
	flag.StringVar(&c.data, "data", ".", "directory of the database")
	flag.Parse()
	if flag.NArg() > 0 {
		fmt.Fprintf(os.Stderr, "shop: unexpected argument %q\n", flag.Arg(0))
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second Ctrl-C ends the program at once

	rt := newShop(c)
	rt.Logger = newLogger()
	if err := run(ctx, rt, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "shop:", err)
		os.Exit(1)
	}
}

// newShop describes the shop; its test starts the same.
func newShop(c config) *watt.Runtime {
	return watt.New(
		watt.App{
			Name: "gateway", New: newGateway, Listen: c.addr, Profile: watt.Entrypoint,
			Calls:   []string{"users", "orders", "resize", "store"},
			Timeout: time.Minute, // an upload may take as long as resize allows
		},
		watt.App{Name: "users", New: users.New, Calls: []string{"store"}},
		watt.App{Name: "orders", New: orders.New, Calls: []string{"store"}},
		watt.App{
			Name: "resize", New: resize.New, Calls: []string{"store"},
			Profile: watt.CPUBound, Isolation: watt.InProcess,
		},
		watt.App{
			Name: "store", New: store.New(filepath.Join(c.data, "shop.db")),
			Profile: watt.IOBound, Workers: store.Connections,
		},
	)
}

// run runs the shop until ctx ends, and tells out how to reach it.
func run(ctx context.Context, rt *watt.Runtime, out io.Writer) error {
	switch err := rt.Start(ctx); {
	case errors.Is(err, context.Canceled):
		return nil // Ctrl-C came first
	case err != nil:
		return err
	}
	fmt.Fprintln(out, usage("http://"+rt.Status()[0].Addr))
	<-ctx.Done()
	return rt.Shutdown(context.WithoutCancel(ctx))
}

// usage is what to paste into a shell in the repository's root.
func usage(url string) string {
	return strings.ReplaceAll(`The shop is at URL (Ctrl-C ends it), and says at URL/docs what it answers. Try:

  curl URL/users/1
  curl 'URL/orders?user=1'
  curl URL/home/1
  curl --data-binary @examples/shop/testdata/mandelbrot.jpg 'URL/pictures?user=1'
  curl URL/pictures/1
  curl -o thumbnail.jpg URL/pictures/1/256
`, "URL", url)
}

// newLogger writes warnings and errors to stderr, for people.
func newLogger() *zap.Logger {
	c := zap.NewDevelopmentConfig()
	c.Level.SetLevel(zap.WarnLevel)
	c.DisableStacktrace = true
	return zap.Must(c.Build())
}
