package page

import (
	"math"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ebb-inference/ebb/events"
	"github.com/ebb-inference/ebb/events/problem"
	"github.com/ebb-inference/ebb/functions/ingress/ask"
	"github.com/ebb-inference/ebb/models"
)

func plain(s string) string { return strings.ReplaceAll(s, nbsp, " ") }

func TestProbabilitiesNeverClaimMoreThanTheyKnow(t *testing.T) {
	t.Parallel()
	for p, want := range map[float64]string{
		0: "0 %", 1e-9: "< 1 %", 0.0049: "< 1 %", 0.005: "1 %", 0.97: "97 %", 0.977: "98 %", 0.994: "99 %",
		0.996: "> 99 %", 0.9999999: "> 99 %", 1: "100 %", 1.5: "100 %", -1: "0 %",
		math.Inf(1): "0 %",
	} {
		require.Equal(t, want, plain(percent(p)), p)
	}
	require.Equal(t, "0 %", plain(percent(math.NaN())))
}

func TestDurationsHaveTwoDigitsThatMatter(t *testing.T) {
	t.Parallel()
	for ms, want := range map[float64]string{
		0: "0 ms", 0.01: "< 0.1 ms", 0.05: "0.1 ms", 3: "3.0 ms", 9.94: "9.9 ms", 9.96: "10 ms", 48.1: "48 ms",
		999.4: "999 ms", 999.6: "1.0 s", 9949: "9.9 s", 9951: "10 s", 61000: "61 s",
	} {
		require.Equal(t, want, plain(duration(ms)), ms)
	}
}

func TestWaitsAreInWords(t *testing.T) {
	t.Parallel()
	for d, want := range map[time.Duration]string{
		-time.Second: "0:00 less than a minute", 59*time.Second + 999*time.Millisecond: "0:59 less than a minute",
		time.Minute: "1:00 1 minute", 119 * time.Second: "1:59 1 minute", 119*time.Minute + 5*time.Second: "119:05 119 minutes",
		50 * time.Hour: "3000:00 50 hours",
	} {
		require.Equal(t, want, clock(d)+" "+plain(minutes(d)), d)
	}
}

func TestSizesNeverReadLargerThanTheyAre(t *testing.T) {
	t.Parallel()
	for n, want := range map[int64]string{
		500: "500 bytes", 1 << 10: "1 kB", 10 << 20: "10 MB", 10<<20 - 1: "9.9 MB", 3 << 19: "1.5 MB",
	} {
		require.Equal(t, want, plain(size(n)), n)
	}
}

func TestVerdicts(t *testing.T) {
	t.Parallel()
	cat := &models.Model{
		Definition: models.Definition{Subject: "a cat", Output: models.Output{Yes: []models.Range{{From: 1, To: 2}, {From: 9, To: 1 << 40}}}},
		Labels:     []string{"lynx", "tabby", "Persian cat", "box"},
	}
	yes, no, half := true, false, 0.55
	boxed := []events.Class{{Label: "box", Probability: 0.4}, {Label: "Persian cat", Probability: 0.3}}
	for name, test := range map[string]struct {
		result ask.Result
		model  *models.Model
		kind   string
		want   string
	}{
		"the label is of a class that means yes": {ask.Result{Answer: &yes, Probability: &half, Top: boxed}, cat, "yes", "Yes, a cat: 55 %, Persian cat"},
		"no such class is among the top":         {ask.Result{Answer: &yes, Probability: &half, Top: boxed[:1]}, cat, "yes", "Yes, a cat: 55 %"},
		"no":                                     {ask.Result{Answer: &no, Probability: &half, Top: boxed}, cat, "no", "No, not a cat: 55 %"},
		"a model that is not known any more":     {ask.Result{Answer: &yes, Probability: &half, Top: boxed}, nil, "yes", "Yes: 55 %"},
		"no, and not known":                      {ask.Result{Answer: &no}, nil, "no", "No"},
		"no probability":                         {ask.Result{Answer: &yes}, cat, "yes", "Yes, a cat"},
		"no question":                            {ask.Result{Top: boxed}, nil, "class", "Looks like box: 40 %"},
		"nothing at all":                         {ask.Result{}, nil, "class", "The model named nothing"},
		"a problem":                              {ask.Result{Error: problem.New("x", 504, "No answer in time", "")}, cat, "error", "No answer in time"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := newCard(&test.result, test.model)
			require.Equal(t, test.kind, c.Kind)
			require.Equal(t, test.want, plain(c.Verdict.String()))
		})
	}
}

func TestTheTimeBarIsFilledExactly(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		timing ask.Timing
		times  string
		bars   string // x and width of each segment
		total  string
	}{
		"the rest is what no part accounts for": {
			ask.Timing{Total: 100, Timing: events.Timing{Queue: 10, Decode: 20, Batch: 0, Compute: 40}},
			"10 ms, 20 ms, 0 ms, 40 ms, 30 ms", "0.00%+10.00% 10.00%+20.00% 30.00%+0.00% 30.00%+40.00% 70.00%+30.00%", "100 ms",
		},
		"clocks that disagree do not overfill it": {
			ask.Timing{Total: 50, Timing: events.Timing{Queue: 60, Decode: 0, Batch: 0, Compute: 40}},
			"60 ms, 0 ms, 0 ms, 40 ms, 0 ms", "0.00%+60.00% 60.00%+0.00% 60.00%+0.00% 60.00%+40.00% 100.00%+0.00%", "50 ms",
		},
		"negative and impossible times count as none": {
			ask.Timing{Total: 10, Timing: events.Timing{Queue: -5, Decode: math.NaN(), Batch: math.Inf(1), Compute: 10}},
			"0 ms, 0 ms, 0 ms, 10 ms, 0 ms", "0.00%+0.00% 0.00%+0.00% 0.00%+0.00% 0.00%+100.00% 100.00%+0.00%", "10 ms",
		},
		"nothing took any time": {
			ask.Timing{}, "0 ms, 0 ms, 0 ms, 0 ms, 0 ms", "0.00%+0.00% 0.00%+0.00% 0.00%+0.00% 0.00%+0.00% 0.00%+0.00%", "0 ms",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSplit(test.timing)
			var times, bars []string
			for _, segment := range s.Segments {
				times = append(times, plain(segment.Time))
				bars = append(bars, segment.X+"+"+segment.Width)
			}
			require.Equal(t, test.times, strings.Join(times, ", "))
			require.Equal(t, test.bars, strings.Join(bars, " "))
			require.Equal(t, test.total, plain(s.Total))
		})
	}
}

func TestOnlyWhatBrowsersShowIsSentBack(t *testing.T) {
	t.Parallel()
	require.Empty(t, preview(nil))
	require.Empty(t, preview([]byte("<svg onload=alert(1)>")))
	require.Empty(t, preview([]byte("II*\x00 a TIFF")))
	require.Empty(t, preview(append([]byte("GIF89a"), make([]byte, maxPreview)...)), "too large to send back")
	require.Equal(t, "data:image/gif;base64,R0lGODlh", string(preview([]byte("GIF89a"))))
}
