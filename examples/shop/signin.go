package main

import (
	"io"
	"net/http"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/golang-jwt/jwt/v5/request"

	"github.com/org/watt"
)

// identity tells the apps behind whose request it is. They may believe it: no header that begins with X-Watt- comes in
// from outside.
const identity = "X-Watt-User"

// giveToken answers with a JSON Web Token that says who the user is, for an hour. A real shop would ask for a password.
func giveToken(key []byte) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if err := r.ParseForm(); err != nil || r.PostForm.Get("user") == "" {
			http.Error(w, "say which user", http.StatusBadRequest)
			return
		}
		claims := jwt.RegisteredClaims{Subject: r.PostForm.Get("user"), ExpiresAt: jwt.NewNumericDate(time.Now().Add(time.Hour))}
		token, err := jwt.NewWithClaims(jwt.SigningMethodHS256, claims).SignedString(key)
		if err != nil {
			watt.WriteError(w, err)
			return
		}
		_, _ = io.WriteString(w, token)
	}
}

// signedIn is a middleware that lets requests with a token pass.
func signedIn(key []byte) func(http.Handler) http.Handler {
	parser := jwt.NewParser(jwt.WithValidMethods([]string{"HS256"}), jwt.WithExpirationRequired())
	known := func(*jwt.Token) (any, error) { return key, nil } //nolint:unparam // it is a jwt.Keyfunc
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			token, err := request.ParseFromRequest(r, request.BearerExtractor{}, known,
				request.WithParser(parser), request.WithClaims(&jwt.RegisteredClaims{}))
			user := ""
			if err == nil {
				user, err = token.Claims.GetSubject()
			}
			if err != nil || user == "" {
				w.Header().Set("WWW-Authenticate", `Bearer realm="shop"`)
				http.Error(w, "sign in first", http.StatusUnauthorized)
				return
			}
			r.Header.Set(identity, user)
			next.ServeHTTP(w, r)
		})
	}
}

// ifSignedIn is signedIn for what everybody may do: requests without a token pass as nobody's.
func ifSignedIn(key []byte) func(http.Handler) http.Handler {
	return func(next http.Handler) http.Handler {
		known := signedIn(key)(next)
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Header.Get("Authorization") == "" {
				next.ServeHTTP(w, r)
				return
			}
			known.ServeHTTP(w, r)
		})
	}
}
