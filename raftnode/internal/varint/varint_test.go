package varint

import (
	"bytes"
	"encoding/binary"
	"math"
	"testing"
)

func TestNumbersAndBytesAreReadAsTheyWereWritten(t *testing.T) {
	var b []byte
	numbers := []uint64{0, 1, 127, 128, 1 << 32, math.MaxUint64}
	for _, n := range numbers {
		b = binary.AppendUvarint(b, n)
	}
	b = append(binary.AppendUvarint(b, 3), "abc"...)
	b = append(binary.AppendUvarint(b, 0), "more"...)
	r := NewReader(b)
	for _, want := range numbers {
		if got := r.Next(); got != want {
			t.Errorf("got %d, want %d", got, want)
		}
	}
	if got := r.Bytes(3); string(got) != "abc" || cap(got) != 3 {
		t.Errorf("got %q with room for %d, want abc and no room", got, cap(got))
	}
	if got := r.Bytes(3); len(got) != 0 {
		t.Errorf("got %q, want nothing", got)
	}
	if r.Bad() || r.Complete() || string(r.Rest()) != "more" {
		t.Errorf("bad %t, complete %t, rest %q; want more, well formed", r.Bad(), r.Complete(), r.Rest())
	}
	if r := NewReader([]byte{1, 2}); r.Complete() || r.Next() != 1 || r.Next() != 2 || !r.Complete() {
		t.Error("a reader is not complete after its last field, or is before")
	}
}

func TestAfterSomethingMalformedNothingIsRead(t *testing.T) {
	number := func(r *Reader) { r.Next() }
	text := func(r *Reader) { r.Bytes(2) }
	for name, test := range map[string]struct {
		input []byte
		read  func(*Reader)
	}{
		"a number that is missing":      {nil, number},
		"a number that is cut short":    {[]byte{0x80}, number},
		"a number of more than 64 bits": {append(bytes.Repeat([]byte{0xff}, 9), 2, 1, 1, 1), number},
		"a length that is missing":      {nil, text},
		"more bytes than there are":     {[]byte{2, 'a'}, text},
		"more bytes than are wanted":    {[]byte{3, 'a', 'b', 'c', 1, 1, 1}, text},
		"a length beyond any memory":    {append(binary.AppendUvarint(nil, math.MaxUint64), 1, 1, 1), text},
	} {
		t.Run(name, func(t *testing.T) {
			r := NewReader(test.input)
			test.read(r)
			if !r.Bad() || r.Complete() {
				t.Fatal("it was taken for well formed")
			}
			if n, b := r.Next(), r.Bytes(10); n != 0 || b != nil || !r.Bad() || r.Complete() {
				t.Errorf("then it read %d and %q", n, b)
			}
		})
	}
}

// FuzzReader reads any input in any pattern, and holds each step against the package that
// wrote it.
func FuzzReader(f *testing.F) {
	f.Add([]byte{1, 2, 'a', 'b', 0x80, 1}, uint16(0b10), 2)
	f.Add([]byte{0x80}, uint16(0), 0)
	f.Add([]byte{200, 1, 'x'}, uint16(1), 255)
	f.Fuzz(func(t *testing.T, input []byte, pattern uint16, most int) {
		most = max(most, 0)
		r, rest := NewReader(input), input
		for range 16 {
			want, size := binary.Uvarint(rest)
			good, end := size > 0, size
			var got uint64
			var text []byte
			if pattern&1 == 0 {
				got = r.Next()
			} else {
				text = r.Bytes(most)
				good = good && want <= uint64(most) && want <= uint64(len(rest)-size)
				end = size + int(want)
			}
			if r.Bad() == good {
				t.Fatalf("%x: well formed %t, said to be bad %t", rest, good, r.Bad())
			}
			if !good {
				if got != 0 || text != nil || r.Next() != 0 || r.Bytes(most) != nil || r.Complete() {
					t.Fatalf("%x is malformed, and is read", rest)
				}
				return
			}
			if pattern&1 == 0 && got != want || pattern&1 == 1 && !bytes.Equal(text, rest[size:end]) {
				t.Fatalf("%x: got %d, %x", rest, got, text)
			}
			rest, pattern = rest[end:], pattern>>1
			if !bytes.Equal(r.Rest(), rest) || r.Complete() != (len(rest) == 0) {
				t.Fatalf("rest %x, want %x", r.Rest(), rest)
			}
		}
	})
}
