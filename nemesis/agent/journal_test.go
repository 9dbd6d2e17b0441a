//go:build linux

package agent

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"

	"capsize/clusters"
)

func resume(pid int) Undo { return Undo{Resume: &Life{Pid: pid}} }

func TestTheJournalSaysWhatStands(t *testing.T) {
	var out bytes.Buffer
	j := newJournal(&out)
	for _, err := range []error{
		j.begin("a", resume(1)), j.begin("b", resume(2)), j.begin("c", resume(3)),
		j.begin("a", resume(4)), // replaces, and is the latest now
		j.write(note{}),         // a beat
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	j.end("b")
	j.end("never begun")
	undos, err := readJournal(&out)
	if want := []Undo{resume(4), resume(3)}; err != nil || !reflect.DeepEqual(undos, want) {
		t.Errorf("%+v, %v, want %+v", undos, err, want)
	}
}

// The last note of an agent that was killed may be torn; others may be damaged. What can be
// read stands.
func TestWhatTheJournalCannotReadItLeavesOut(t *testing.T) {
	good := `{"key":"a","undo":{"resume":{"pid":1}}}` + "\n"
	for name, c := range map[string]struct{ text, problem string }{
		"torn":        {good + `{"key":"a"`, "it is torn"},
		"torn, whole": {good + `{"key":"a"}`, "it is torn"}, // without its line's end it was not written
		"damaged":     {`{"key":7}` + "\n" + good, "cannot unmarshal"},
		"too long":    {`{"key":"` + strings.Repeat("x", 3*noteLineMost) + "\"}\n" + good, "longer than"},
	} {
		undos, err := readJournal(strings.NewReader(c.text))
		if !reflect.DeepEqual(undos, []Undo{resume(1)}) || err == nil || !strings.Contains(err.Error(), c.problem) {
			t.Errorf("%s: %+v, %.200v", name, undos, err)
		}
	}
}

func TestTheJournalIsBounded(t *testing.T) {
	var text strings.Builder
	for i := range notesMost + 100 {
		_, _ = fmt.Fprintf(&text, "{\"key\":\"%d\",\"undo\":{\"resume\":{\"pid\":1}}}\nnonsense\n", i)
	}
	undos, err := readJournal(strings.NewReader(text.String()))
	if len(undos) != notesMost || err == nil || len(err.Error()) > 10_000 {
		t.Errorf("%d stand; %v", len(undos), err)
	}
	var out bytes.Buffer
	j := newJournal(&out)
	// A request of a line may need a note that is longer: JSON writes "<" in six bytes.
	long := Undo{Restart: &Ending{Process: clusters.Process{Name: "db", Env: []string{strings.Repeat("<", noteLineMost/4)}}}}
	if err := j.begin("a", long); err == nil || out.Len() > 0 {
		t.Errorf("a note of any length is taken: %d bytes, %v", out.Len(), err)
	}
	if err := j.begin("a", resume(1)); err != nil {
		t.Errorf("a note that was refused spoils the journal: %v", err)
	}
}

// A guardian that is stopped reads nothing: what it would not know of is not done, and the
// agent learns that nobody guards it.
func TestAGuardianThatTakesNoNotesIsLost(t *testing.T) {
	for _, gone := range []bool{false, true} {
		t.Run(fmt.Sprintf("gone %t", gone), func(t *testing.T) {
			in, out, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _, _ = in.Close(), out.Close() }()
			if gone {
				_ = in.Close()
			}
			j := newJournal(out)
			began := time.Now()
			for err == nil {
				err = j.begin("a", resume(1))
			}
			if took := time.Since(began); took > patience/2 {
				t.Errorf("it took %s", took)
			}
			select {
			case <-j.guardianLost():
			default:
				t.Error("it is not known that the guardian is lost")
			}
			if again := j.begin("b", resume(2)); again == nil {
				t.Error("a line after a torn one is accepted")
			}
		})
	}
}

func FuzzReadJournal(f *testing.F) {
	var out bytes.Buffer
	j := newJournal(&out)
	_ = j.begin("a", Undo{Restart: &Ending{Process: clusters.Process{Name: "db", Argv: []string{"/bin/db"}}, Life: Life{7, 8}}})
	_ = j.begin("b", Undo{End: &Life{Pid: 1, Start: 2}})
	_ = j.begin("c", resume(3))
	j.end("b")
	_ = j.write(note{})
	f.Add(out.Bytes())
	f.Add(out.Bytes()[:out.Len()/2])
	f.Add([]byte("{}\n\n{\"undo\":null}\n{\"key\":\"\",\"undo\":{}}"))
	f.Add([]byte(`{"key":"a"`))
	f.Fuzz(func(t *testing.T, text []byte) {
		undos, _ := readJournal(bytes.NewReader(text))
		if len(undos) > bytes.Count(text, []byte("\n")) {
			t.Fatalf("%d undos of %q", len(undos), text)
		}
		// What stands can be noted again, and is read the same, in the same order.
		var again bytes.Buffer
		j := newJournal(&again)
		for i := len(undos) - 1; i >= 0; i-- {
			if err := j.begin(fmt.Sprint(i), undos[i]); err != nil {
				t.Fatal(err)
			}
		}
		second, err := readJournal(io.Reader(&again))
		one, _ := json.Marshal(undos)
		two, _ := json.Marshal(second)
		if err != nil || !bytes.Equal(one, two) {
			t.Fatalf("%s became %s (%v)", one, two, err)
		}
	})
}
