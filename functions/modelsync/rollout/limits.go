package rollout

import "fmt"

// Limits are how much worse than before a candidate may do.
type Limits struct {
	Errors  float64 // the share of its calls that may fail beyond what failed before
	Latency float64 // how many times its predecessor's its mean compute time may be
}

// What is too little to judge by: chance alone would refuse good versions.
const (
	leastFailures = 3
	leastCalls    = 20
	leastSeconds  = 0.005 // that a call takes longer: less than that is the machine's mood
)

// worse says in what a candidate does worse than the limits allow, by what was counted since it has traffic; "" when in
// nothing.
//
// Of a call that failed nobody can tell which version it was sent to. Those beyond the share that failed before are taken to
// be the candidate's: of its calls, they may be no more than the limit. Compute time is compared with the predecessor's of
// the same time, when it has had calls, since both then had the same machine and the same load; else with that of before.
func (l Limits) worse(t Tally, before Rate, candidate, predecessor int64) string {
	var calls uint64
	for _, c := range t.Answered {
		calls += c.Calls
	}
	excess := float64(t.Failed) - before.Failed*float64(calls+t.Failed)
	if excess >= leastFailures {
		if share := excess / (excess + float64(t.Answered[candidate].Calls)); share > l.Errors {
			return fmt.Sprintf("%.1f %% of its calls failed beyond what failed before, and %.1f %% may (%d of %d calls failed in all)",
				percent(share), percent(l.Errors), t.Failed, calls+t.Failed)
		}
	}
	its := t.Answered[candidate]
	if its.Calls < leastCalls || candidate == predecessor {
		return ""
	}
	usual := before.Seconds
	if c := t.Answered[predecessor]; c.Calls >= leastCalls {
		usual = c.mean()
	}
	if usual > 0 && its.mean() > l.Latency*usual && its.mean()-usual > leastSeconds {
		return fmt.Sprintf("it computes for %.1f ms a call, and its predecessor for %.1f ms: %.1f times as long may be",
			milliseconds(its.mean()), milliseconds(usual), l.Latency)
	}
	return ""
}

// rate is how the counted calls went.
func (t Tally) rate() Rate {
	var all Count
	for _, c := range t.Answered {
		all.Calls += c.Calls
		all.Seconds += c.Seconds
	}
	if all.Calls+t.Failed == 0 {
		return Rate{}
	}
	return Rate{Failed: float64(t.Failed) / float64(all.Calls+t.Failed), Seconds: all.mean()}
}

func (c Count) mean() float64 {
	if c.Calls == 0 {
		return 0
	}
	return c.Seconds / float64(c.Calls)
}

func percent(share float64) float64        { return 100 * share }
func milliseconds(seconds float64) float64 { return 1000 * seconds }
