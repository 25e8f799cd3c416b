// Package control carries messages, and descriptors with them, between a parent and its child.
package control

import "encoding/json"

// Message is what one side tells the other.
type Message struct {
	Kind string          `json:"kind"`
	Data json.RawMessage `json:"data,omitempty"`
}

// New returns a message with v in JSON; nil stands for nothing.
func New(kind string, v any) (Message, error) {
	m := Message{Kind: kind}
	if v == nil {
		return m, nil
	}
	data, err := json.Marshal(v)
	m.Data = data
	return m, err
}
