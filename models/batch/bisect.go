package batch

// divide has the call that failed repeated in halves, and so on, until the items that are at fault fail alone. It
// returns false when the call fails as a whole: it has only one item, or the error is nobody's fault.
//
// One item at fault among n costs at most 2·log2(n) more calls, rounded up; k of them at most k times as many, and never
// more than 2n-2. The calls follow each other in the slot of the batch, and each leaves out the items that nobody waits
// for by then.
func (s *slot[In, Out]) divide(err error) bool {
	if len(s.part) < 2 || s.batcher.itemFault == nil || !s.batcher.itemFault(err) {
		return false
	}
	middle := len(s.part) / 2
	s.parts = append(s.parts, s.part[middle:], s.part[:middle])
	return true
}
