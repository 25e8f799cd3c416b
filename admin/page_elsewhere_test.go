//go:build chromium

package admin_test

import (
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"

	"github.com/org/watt/admin"
	"github.com/org/watt/watttest"
)

// TestWhoHasGivenTheBrowserTheTokenIsNotAskedAgain: from elsewhere the page itself needs it.
func TestWhoHasGivenTheBrowserTheTokenIsNotAskedAgain(t *testing.T) {
	rt := system()
	watttest.Start(t, rt)
	h := admin.Handler(rt, admin.Options{Token: token})
	elsewhere := &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 9090}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), http.LocalAddrContextKey, net.Addr(elsewhere))))
	}))
	defer server.Close()
	defer server.CloseClientConnections()
	restart := js(`(document.getElementById('did').textContent = '', document.querySelector('#instances button').click())`)
	restarted := holds(`document.getElementById('did').textContent.includes('was restarted')`)
	run(t, browser(t),
		chromedp.Navigate(strings.Replace(server.URL, "http://", "http://"+url.UserPassword("me", token).String()+"@", 1)+"#users"),
		holds(`document.querySelectorAll('#charts canvas').length === 4`),
		holds(`document.querySelectorAll('#instances button').length === 4`),
		restart, restarted,
		js(`sessionStorage.setItem('watt-token', 'one of old')`), // the page asks then, and not the browser
		restart, holds(`document.getElementById('ask').open`),
		chromedp.SendKeys(chromedp.CSS(`#ask input`), token+"\r"),
		restarted,
	)
}
