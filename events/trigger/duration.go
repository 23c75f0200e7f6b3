package trigger

import (
	"errors"
	"regexp"
	"strconv"
	"time"
)

// iso8601 is the part of ISO 8601 durations that has a fixed length. One decimal is what Knative keeps: it would read
// PT0.05S as no time at all.
var iso8601 = regexp.MustCompile(`^P(?:(\d{1,5})D)?(T(?:(\d{1,5})H)?(?:(\d{1,5})M)?(?:(\d{1,5})(?:\.(\d))?S)?)?$`)

func parseDuration(s string) (time.Duration, error) {
	m := iso8601.FindStringSubmatch(s)
	if m == nil || s == "P" || m[2] == "T" {
		return 0, errors.New("is not an ISO 8601 duration of days, hours, minutes and seconds with at most one decimal, such as PT0.2S or PT1M30S")
	}
	var d time.Duration
	for i, unit := range map[int]time.Duration{1: 24 * time.Hour, 3: time.Hour, 4: time.Minute, 5: time.Second, 6: time.Second / 10} {
		if m[i] == "" {
			continue
		}
		n, err := strconv.Atoi(m[i])
		if err != nil {
			return 0, err
		}
		d += time.Duration(n) * unit // five digits of days are 274 years: no overflow
	}
	return d, nil
}
