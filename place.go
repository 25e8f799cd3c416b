package watt

import (
	"context"
	"net"
	"net/http"
)

// place is where an app's instances are, and the way in for requests and connections: a [door] to handlers of
// this process, a [relay] to listeners of this process, or a [remote] elsewhere.
type place interface {
	// open lets the mesh in. The app's goroutines may already call others.
	open()
	// begin returns a new life for the instance with that number.
	begin(index int) life
	// listen gives the place a public side, and publish opens that once the app is ready.
	listen(ln net.Listener)
	publish()
	// addr returns where the public side listens, or "".
	addr() string

	// send admits a call and sends its request; trace is what that hands on of the request it is made in.
	send(c *call, req *http.Request, handed trace) (*http.Response, error)
	// connect opens a raw connection for the app called caller.
	connect(ctx context.Context, caller string) (net.Conn, error)

	// lameDuck makes every answer of the public side tell its client to go away.
	lameDuck()
	// quiet lets the public side's clients go, and waits until nothing of theirs is in progress, or ctx ends.
	quiet(ctx context.Context) error
	// close closes everything; what is in progress when ctx ends is cut.
	close(ctx context.Context)
}

func newPlace(a *app, config *App) place {
	switch {
	case config.URL != "":
		return newRemote(a, config)
	case config.Serve != nil:
		return newRelay(a)
	}
	return newDoor(a, &a.rt.buffers)
}
