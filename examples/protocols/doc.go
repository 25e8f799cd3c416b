// Package protocols has no code of its own: its tests show how protocols other than plain HTTP
// requests are wired, over the mesh and over a public port, and prove that they work.
//
// # gRPC
//
// A gRPC server is an [net/http.Handler] like any other, so that each call is admitted, bounded and
// counted by itself. Its client dials through the mesh; "passthrough" keeps the name from DNS:
//
//	watt.App{Name: "payments", Handler: server} // a *grpc.Server
//
//	conn, err := grpc.NewClient("passthrough:payments",
//		grpc.WithContextDialer(env.Dial),
//		grpc.WithTransportCredentials(insecure.NewCredentials()))
//	env.Cleanup(conn.Close)
//
// Unary calls, streams in both directions, deadlines and cancellation work as over TCP; a full app
// answers with codes.Unavailable. A stream that waits more than it works calls [github.com/org/watt.LongLived], and
// ends when the drain begins. On a public port without TLS, Protocols must allow HTTP/2.
//
// Errors of the client are gRPC's own, and for [github.com/org/watt.WriteError] like any other: 500. Made a
// &CallError{App: "payments", Err: err}, one is 502; with ErrUnavailable for its Err, 503.
//
// The server runs methods in goroutines of its own, so that one that panics ends the process, other apps included,
// unless an interceptor recovers.
//
// # WebSocket
//
// The server is any handler that upgrades; the client needs one line:
//
//	websocket.Dial(ctx, "ws://chat.watt.local/", &websocket.DialOptions{HTTPClient: env.Client})
//
// An upgraded connection holds no worker and counts under MaxConns. The request's context ends when
// the drain begins, which is the moment to say goodbye.
//
// # Server-sent events
//
// A handler that answers with text/event-stream gives its worker back by that alone. Every flush
// arrives at once, through gateways too. The request's context ends when the client goes away or
// the drain begins.
//
// # Raw TCP
//
// Serve gets a [net.Listener], whose connections come from [github.com/org/watt.Env.Dial] and from Listen alike,
// half-close included. When its ctx ends it lets its connections finish and returns.
package protocols
