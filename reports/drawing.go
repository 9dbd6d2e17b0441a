package reports

import (
	"math"
	"strconv"
	"time"
)

// A picture is laid here as data and drawn by the template, which escapes every text in it.

// px is a length or a place in a picture, in units of its viewBox: pixels on a wide screen.
type px float64

// String writes one decimal at most.
func (p px) String() string { return strconv.FormatFloat(math.Round(float64(p)*10)/10, 'f', -1, 64) }

// MarshalJSON writes what String does.
func (p px) MarshalJSON() ([]byte, error) { return []byte(p.String()), nil }

// box is a rectangle. Its title is shown when the pointer rests on it.
type box struct {
	Class, Title string
	X, Y, W, H   px
}

// stroke is a straight line.
type stroke struct {
	Class          string
	X1, Y1, X2, Y2 px
}

// label is a text. Anchor is SVG's: start, middle or end.
type label struct {
	Class, Anchor, Text string
	X, Y                px
	From, Until         px // where the thing that it names begins and ends; 0 where that does not matter
}

// textAt makes a label of something that has no duration.
func textAt(class, anchor, text string, x, y px) label {
	return label{Class: class, Anchor: anchor, Text: text, X: x, Y: y}
}

// outline is a path, in SVG's path language.
type outline struct{ Class, D, Title string }

// glyph is the width of a character of the pictures' text, on average and rounded up.
const glyph = 6.4

func textWidth(s string) px {
	width := px(0)
	for _, r := range s {
		if r >= 0x1100 { // scripts whose characters are about square
			width += glyph
		}
		width += glyph
	}
	return width
}

// axis maps the time of a run to the width of a picture.
type axis struct {
	begin, end  time.Duration
	left, right px
}

func (a axis) x(t time.Duration) px {
	t = min(max(t, a.begin), a.end)
	return a.left + px(float64(t-a.begin)/float64(a.end-a.begin))*(a.right-a.left)
}

// ticks returns the axis's marks: at round times, a dozen or so.
func (a axis) ticks(most int) []time.Duration {
	step := niceStep(a.end-a.begin, most)
	var marks []time.Duration
	for t := (a.begin + step - 1).Truncate(step); t <= a.end; t += step {
		marks = append(marks, t)
	}
	return marks
}

// niceStep returns the smallest round step that divides a span into at most so many parts.
func niceStep(span time.Duration, most int) time.Duration {
	for unit := time.Millisecond; ; unit *= 10 {
		for _, times := range []time.Duration{1, 2, 5} {
			if span/(unit*times) < time.Duration(most) {
				return unit * times
			}
		}
	}
}

// niceCeiling returns the smallest round number that is not below n.
func niceCeiling(n float64) float64 {
	for unit := 1.0; ; unit *= 10 {
		for _, times := range []float64{1, 2, 3, 4, 5, 6, 8} {
			if unit*times >= n {
				return unit * times
			}
		}
	}
}

// seconds writes a mark of the time axis.
func seconds(t time.Duration) string {
	return strconv.FormatFloat(t.Seconds(), 'f', -1, 64) + " s"
}
