package edn

import (
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"
)

func readAll(text string) (forms []Value, err error) {
	r := NewReader(strings.NewReader(text))
	for {
		v, err := r.Next()
		if errors.Is(err, io.EOF) {
			return forms, nil
		}
		if err != nil {
			return forms, err
		}
		forms = append(forms, v)
	}
}

func of(kind Kind, items ...Value) Value { return Value{Kind: kind, Items: items} }

func TestEveryFormIsRead(t *testing.T) {
	for text, want := range map[string]Value{
		"nil": {}, "true": {Kind: Bool, Int: 1}, "false": {Kind: Bool},
		"17": Integer(17), "-17": Integer(-17), "+0": Integer(0), "17N": Integer(17), "0x1f": Integer(31),
		"9223372036854775807": Integer(1<<63 - 1), "18446744073709551615": {Kind: Number, Text: "18446744073709551615"},
		"1/3": {Kind: Number, Text: "1/3"}, "1.5": {Kind: Number, Text: "1.5"}, "-1.5e3M": {Kind: Number, Text: "-1.5e3M"},
		"##NaN": {Kind: Number, Text: "##NaN"}, "##-Inf": {Kind: Number, Text: "##-Inf"},
		`\a`: {Kind: Char, Text: "a"}, `\newline`: {Kind: Char, Text: "\n"}, `\u00e9`: {Kind: Char, Text: "é"}, `\é`: {Kind: Char, Text: "é"},
		`\(`: {Kind: Char, Text: "("}, `\o101`: {Kind: Char, Text: "A"}, `\u`: {Kind: Char, Text: "u"},
		`"a\"\\\n\té\u00e9\ud83d\ude00"`: Text("a\"\\\n\téé😀"), `"\ud83dx"`: Text("\ufffdx"),
		":a": Key("a"), ":a.b/c": Key("a.b/c"), "::a": Key("a"),
		"a": {Kind: Symbol, Text: "a"}, "+": {Kind: Symbol, Text: "+"}, "-a": {Kind: Symbol, Text: "-a"},
		"<init>": {Kind: Symbol, Text: "<init>"}, "a$b__1#'": {Kind: Symbol, Text: "a$b__1#'"},
		"()": of(List), "[1 , 2]": of(Vector, Integer(1), Integer(2)), "#{1}": of(Set, Integer(1)), "{:a 1}": of(Map, Key("a"), Integer(1)),
		"; a comment\n[#_ 1 #_#_ 2 3 4] ": of(Vector, Integer(4)),
		"#inst \"1985\"":                  {Kind: Tagged, Text: "inst", Items: []Value{Text("1985")}},
		"#jepsen.history.Op{:f :read}":    {Kind: Tagged, Text: "jepsen.history.Op", Items: []Value{of(Map, Key("f"), Key("read"))}},
		"#object[a.B 0x7f \"x\"]":         {Kind: Tagged, Text: "object", Items: []Value{of(Vector, Value{Kind: Symbol, Text: "a.B"}, Integer(127), Text("x"))}},
		"#:a{:b 1 :c/d 2 :_/e 3 4 5}":     of(Map, Key("a/b"), Integer(1), Key("c/d"), Integer(2), Key("e"), Integer(3), Integer(4), Integer(5)),
	} {
		forms, err := readAll(text)
		if err != nil || len(forms) != 1 {
			t.Errorf("%s: %d forms, %v", text, len(forms), err)
			continue
		}
		if diff := cmp.Diff(want, forms[0]); diff != "" {
			t.Errorf("%s: %s", text, diff)
		}
	}
}

func TestWhatIsNoEDNIsRefusedWithItsLine(t *testing.T) {
	for text, says := range map[string]string{
		"\n\n(": "line 3: the document ends in the middle", "[1 2": "in the middle", `"ab`: "in the middle", "#": "in the middle", "#_": "in the middle", "#tag": "in the middle", `\`: "in the middle",
		")": "closes nothing", "(]": "closes nothing", "{:a}": "without a value", "{:a 1 :b #_2}": "without a value",
		`"\q"`: "stands for nothing", `"\u12x4"`: "no character", `\abc`: "no character", `\o777`: "no character",
		"1a": "no number", "01": "no number", "1_000": "no number", "--1": "", "1/": "no number", "+-1": "", "0x": "no number", "1e": "no number", "##x": "no number", "# a": "begins nothing",
		":": "without a name", "1.5N": "no number",
		strings.Repeat("[", 1000): "nested", strings.Repeat("#a ", 1000) + "1": "nested", strings.Repeat("#_", 1000): "nested",
	} {
		forms, err := readAll(text)
		switch {
		case says == "":
			if err != nil || len(forms) != 1 || forms[0].Kind != Symbol {
				t.Errorf("%.40s: %v, %v, want a symbol", text, forms, err)
			}
		case err == nil || !strings.Contains(err.Error(), says) || !strings.Contains(err.Error(), "line "):
			t.Errorf("%.40s: %v, want %q", text, err, says)
		}
	}
}

func TestAReaderStepsIntoTheListThatADocumentIs(t *testing.T) {
	for text, want := range map[string]string{
		"; all\n[1 2\n 3]\n; end\n#_4": "1 2 3", "(1 #_ 2)": "1", "[]": "", "{:a 1} 2": "{:a 1} 2", "": "",
		"[1 2": "1 2 error", "[1] 2": "1 error", "[1 }": "1 error", "[1] )": "1 error",
	} {
		r := NewReader(iotest.OneByteReader(strings.NewReader(text)))
		if _, err := r.Enter(); err != nil {
			t.Errorf("%s: %v", text, err)
		}
		var got []string
		for {
			v, err := r.Next()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				if _, again := r.Next(); again == nil {
					t.Errorf("%s: goes on after %v", text, err)
				}
				got = append(got, "error")
				break
			}
			got = append(got, v.String())
		}
		if strings.Join(got, " ") != want {
			t.Errorf("%s: %v", text, got)
		}
	}
}

func TestLinesAreCounted(t *testing.T) {
	r := NewReader(strings.NewReader("[1\n\n:a\n\"b\n\"\n 2 ; c\n\n{:d\n e}]"))
	if _, err := r.Enter(); err != nil {
		t.Fatal(err)
	}
	for _, want := range []int{1, 3, 4, 6, 8} {
		if v, err := r.Next(); err != nil || r.Line() != want {
			t.Errorf("%s: line %d, want %d (%v)", v, r.Line(), want, err)
		}
	}
}

func TestAnErrorOfTheDiskIsTold(t *testing.T) {
	r := NewReader(iotest.TimeoutReader(iotest.OneByteReader(strings.NewReader("[1 2]"))))
	if _, err := r.Next(); !errors.Is(err, iotest.ErrTimeout) {
		t.Errorf("%v", err)
	}
}

func drawForm(t *rapid.T, depth int) Value {
	name := rapid.StringMatching(`[a-z*!_?<>=.$&%][a-z0-9.#:'-]{0,5}(/[a-z][a-z0-9-]*)?`)
	kinds := []Kind{Nil, Bool, Int, Number, Char, String, Symbol, Keyword}
	if depth > 0 {
		kinds = append(kinds, List, Vector, Set, Map, Tagged)
	}
	v := Value{Kind: rapid.SampledFrom(kinds).Draw(t, "kind")}
	switch v.Kind {
	case Bool:
		v.Int = rapid.Int64Range(0, 1).Draw(t, "bool")
	case Int:
		v.Int = rapid.Int64().Draw(t, "int")
	case Number:
		v.Text = rapid.SampledFrom([]string{"1/2", "-3/4", "1.5", "1e9", "2.0M", "99999999999999999999", "99999999999999999999N", "##Inf", "1e999"}).Draw(t, "number")
	case Char:
		v.Text = string(rapid.Rune().Draw(t, "char"))
	case String:
		v.Text = rapid.String().Draw(t, "string")
	case Symbol:
		v.Text = name.Filter(func(s string) bool { return s != "nil" && s != "true" && s != "false" }).Draw(t, "symbol")
	case Keyword:
		v.Text = name.Draw(t, "keyword")
	case List, Vector, Set:
		v.Items = rapid.SliceOfN(rapid.Custom(func(t *rapid.T) Value { return drawForm(t, depth-1) }), 0, 4).Draw(t, "items")
	case Map:
		for range 2 * rapid.IntRange(0, 3).Draw(t, "pairs") {
			v.Items = append(v.Items, drawForm(t, depth-1))
		}
	case Tagged:
		v.Text, v.Items = name.Filter(func(s string) bool { return s[0] != '_' }).Draw(t, "tag"), []Value{drawForm(t, depth-1)}
	}
	return v
}

func TestFormsSurviveTheirText(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := drawForm(t, 4)
		forms, err := readAll(want.String())
		if err != nil || len(forms) != 1 {
			t.Fatalf("%s: %d forms, %v", want, len(forms), err)
		}
		if diff := cmp.Diff(want, forms[0], cmpopts.EquateEmpty()); diff != "" {
			t.Fatalf("%s: %s", want, diff)
		}
	})
}

func FuzzReader(f *testing.F) {
	f.Add(`{:type :invoke, :f :cas, :value [5 [1 2]], :error [:x "é\n" \a 1.5 #inst "2"]} ; c` + "\n#_ 1 (##NaN #{1/2} #:a{:b 0x1f})")
	f.Add("[1 2")
	f.Fuzz(func(t *testing.T, text string) {
		forms, err := readAll(text)
		if err != nil {
			return
		}
		for _, v := range forms {
			again, err := readAll(v.String())
			if err != nil || len(again) != 1 {
				t.Fatalf("%q of %q: %d forms, %v", v, text, len(again), err)
			}
			if v.String() != again[0].String() {
				t.Fatalf("%q became %q", v, again[0])
			}
		}
	})
}
