package main

import (
	"context"
	"errors"
	"math/rand/v2"
	"net"
	"net/http"
	"time"

	"github.com/failsafe-go/failsafe-go"
	"github.com/failsafe-go/failsafe-go/budget"
	"github.com/failsafe-go/failsafe-go/circuitbreaker"
	"github.com/failsafe-go/failsafe-go/failsafehttp"
	"github.com/failsafe-go/failsafe-go/retrypolicy"
)

const (
	tries       = 3
	firstDelay  = 50 * time.Millisecond
	mostPatient = 5 * time.Second // with a service that says when to come again
	part        = 0.1             // of what is in progress may be tries after the first
)

// client calls a service that may fail, or be overloaded.
//
//   - It tries again what fails, and may be done again; of other requests only those that nobody has got. The time
//     between is random, from nothing to a bound that doubles (full jitter: Marc Brooker, Exponential Backoff And
//     Jitter, AWS Architecture Blog, 2015), but never shorter than the service's Retry-After.
//   - No more than a tenth of what is in progress are tries after the first: when everything fails, trying again
//     is a part of the problem.
//   - When half of what was asked within ten seconds has failed, it asks nothing for five, and then once.
type client struct {
	http.Client
	breaker circuitbreaker.CircuitBreaker[*http.Response]
}

func newClient(base http.RoundTripper) *client {
	c := &client{breaker: circuitbreaker.NewBuilder[*http.Response]().
		HandleIf(failed).WithFailureRateThreshold(0.5, 10, 10*time.Second).WithDelay(5 * time.Second).Build()}
	few := budget.NewBuilder().WithMaxRate(part).WithMinConcurrency(1).Build()
	retrying := func(handle func(*http.Response, error) bool) http.RoundTripper {
		return failsafehttp.NewRoundTripper(base, retrypolicy.NewBuilder[*http.Response]().
			HandleIf(handle).AbortOnErrors(context.Canceled, context.DeadlineExceeded, circuitbreaker.ErrOpen).AbortIf(tooLong).
			WithMaxAttempts(tries).WithDelayFunc(delay).WithBudget(few).ReturnLastFailure().Build(), c.breaker)
	}
	again, unsent := retrying(failed), retrying(notSent)
	c.Transport = roundTripper(func(req *http.Request) (*http.Response, error) {
		if repeatable(req) {
			return again.RoundTrip(req)
		}
		return unsent.RoundTrip(req)
	})
	return c
}

type roundTripper func(*http.Request) (*http.Response, error)

// RoundTrip implements [http.RoundTripper].
func (f roundTripper) RoundTrip(req *http.Request) (*http.Response, error) { return f(req) }

// repeatable reports whether a request may be done more than once.
func repeatable(req *http.Request) bool {
	switch req.Method {
	case http.MethodGet, http.MethodHead, http.MethodOptions, http.MethodPut, http.MethodDelete:
		return true
	}
	return req.Header.Get("Idempotency-Key") != ""
}

// failed reports whether the service is in trouble. What is wrong with the request is not that.
func failed(resp *http.Response, err error) bool {
	return err != nil || resp.StatusCode == http.StatusTooManyRequests || resp.StatusCode >= http.StatusInternalServerError
}

// notSent reports whether the service has not got the request.
func notSent(_ *http.Response, err error) bool {
	op, ok := errors.AsType[*net.OpError](err)
	return ok && op.Op == "dial"
}

// delay says how long to wait before the next try.
func delay(tried failsafe.ExecutionAttempt[*http.Response]) time.Duration {
	random := rand.N(firstDelay << tried.Retries())
	return max(0, failsafehttp.DelayFunc(tried)) + random
}

// tooLong reports whether the service wants more patience than there is.
func tooLong(resp *http.Response, _ error) bool {
	if resp == nil {
		return false
	}
	after, err := time.ParseDuration(resp.Header.Get("Retry-After") + "s")
	return err == nil && after > mostPatient
}
