//nolint:thelper // what takes a *testing.T here is a step, unless it begins with t.Helper
package cluster_test

import (
	"context"
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// failsNoRequestRollingOut gives a function another revision under load, waits until the old one has no pods, and goes back.
func failsNoRequestRollingOut(t *testing.T) {
	for _, service := range []string{"ingress", "dispatch-cat"} {
		t.Run(service, func(t *testing.T) {
			defer func() {
				command(t, nil, "kn", "service", "update", service, "-n", namespace, "--env", "LOG_LEVEL-", "--traffic", "@latest=100")
			}()
			var there, back time.Duration
			account := under(t, service, catsAndDogs, func(ctx context.Context) (err error) {
				old, err := latest(ctx, service)
				if err != nil {
					return err
				}
				if there, err = shift(ctx, service, old, "--env", "LOG_LEVEL=debug"); err != nil {
					return err
				}
				current, err := latest(ctx, service)
				if err != nil {
					return err
				}
				if current == old {
					return fmt.Errorf("%s has no new revision", service)
				}
				back, err = shift(ctx, service, current, "--traffic", old+"=100")
				return err
			})
			require.Zero(t, account.Failed(), "%v", account.Problems)
			require.Zero(t, account.Broken)
			require.Zero(t, account.Told)
			measured(service+": a new revision under load, and back", "%.0f s and %.0f s until the one before has no pods; %s; 0 failed", there.Seconds(), back.Seconds(), became(account))
		})
	}
}

// shift updates a Service by kn so that a revision gets nothing any more, and waits until that has no pods.
func shift(ctx context.Context, service, from string, args ...string) (time.Duration, error) {
	began := time.Now()
	if _, err := run(ctx, nil, "kn", append([]string{"service", "update", service, "-n", namespace}, args...)...); err != nil {
		return 0, err
	}
	for end := began.Add(patience); ; {
		out, err := run(ctx, nil, "kubectl", "-n", namespace, "get", "deployment", from+"-deployment", "-o", "json")
		if err != nil {
			return 0, err
		}
		var d object
		if err := json.Unmarshal(out, &d); err != nil {
			return 0, err
		}
		if d.Spec.Replicas != nil && *d.Spec.Replicas == 0 {
			return time.Since(began), nil
		}
		if time.Now().After(end) {
			return 0, fmt.Errorf("%s has pods yet", from)
		}
		if err := pause(ctx, interval); err != nil {
			return 0, err
		}
	}
}

// latest is the revision of a Service that was ready last.
func latest(ctx context.Context, service string) (string, error) {
	out, err := run(ctx, nil, "kubectl", "-n", namespace, "get", "ksvc", service, "-o", "json")
	if err != nil {
		return "", err
	}
	var s object
	err = json.Unmarshal(out, &s)
	return s.Status.LatestReadyRevisionName, err
}
