package harness

import (
	"fmt"
	"strconv"
	"strings"
)

// Bytes is an amount of memory. In text it is a number with a unit: 512MiB, 2GiB.
type Bytes uint64

var byteUnits = []struct {
	name string
	size Bytes
}{{"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}, {"B", 1}}

// String returns b in the largest unit that divides it.
func (b Bytes) String() string {
	for _, unit := range byteUnits {
		if b >= unit.size && b%unit.size == 0 {
			return strconv.FormatUint(uint64(b/unit.size), 10) + unit.name
		}
	}
	return "0B"
}

// MarshalText writes b as String does.
func (b Bytes) MarshalText() ([]byte, error) { return []byte(b.String()), nil }

// UnmarshalText reads a number with a unit.
func (b *Bytes) UnmarshalText(text []byte) error {
	s := strings.TrimSpace(string(text))
	for _, unit := range byteUnits {
		number, ok := strings.CutSuffix(s, unit.name)
		if !ok {
			continue
		}
		n, err := strconv.ParseUint(strings.TrimSpace(number), 10, 32)
		if err != nil {
			break
		}
		*b = Bytes(n) * unit.size
		return nil
	}
	return fmt.Errorf("%q is not an amount of memory: want a number with B, KiB, MiB or GiB, such as 512MiB", s)
}
