package pipe

import "io"

// copyBuffer is what Copy copies in pieces of, in bytes.
const copyBuffer = minBuffered << 2

// Copy copies from src to dst until src ends, through recycled memory. It does not look for other ways that
// either of them might have.
func (b *Buffers) Copy(dst io.Writer, src io.Reader) (int64, error) {
	mem := b.Get(copyBuffer)
	defer b.Put(mem)
	return io.CopyBuffer(struct{ io.Writer }{dst}, struct{ io.Reader }{src}, *mem)
}
