package reports

import "io"

func WriteHTML(w io.Writer, r *Run) error { return WriteText(w, r, false) }
