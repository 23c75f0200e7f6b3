package batch

// divide computes the halves of a batch that failed because of some of its items, and so on until those fail alone. It
// returns false when the batch fails as a whole: it has only one item, or the error is nobody's fault.
//
// One item at fault among n costs at most 2·log2(n) more calls; k of them at most k times as much, and never more than
// 2n-2. The calls follow each other in the slot of the batch, and each leaves out the items that nobody waits for by
// then.
func (s *slot[In, Out]) divide(items []*item[In, Out], err error) bool {
	if len(items) < 2 || s.batcher.itemFault == nil || !s.batcher.itemFault(err) {
		return false
	}
	middle := len(items) / 2
	for _, half := range [][]*item[In, Out]{items[:middle], items[middle:]} {
		if c, live := s.retake(half); c != nil {
			s.compute(c, live)
		}
	}
	return true
}
