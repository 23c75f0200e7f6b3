package knative_test

import (
	"context"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	servingv1 "knative.dev/serving/pkg/apis/serving/v1"

	"github.com/ebb-inference/ebb/functions/modelsync/knative"
	"github.com/ebb-inference/ebb/functions/modelsync/rollout"
)

func TestServingAsksTheServerOnceWhatItsImageBrought(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	for range 3 {
		found, err := c.target().Serving(t.Context())
		require.NoError(t, err)
		require.Equal(t, rollout.Serving{Version: 1, Kept: []int64{1}}, found)
	}
	require.Equal(t, 1, c.servers[service+"-00001"].asked)
	require.Equal(t, []string{"latest=100"}, c.traffic(), "nobody rolls anything out")
}

func TestServingWakesWhatIsAtZero(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	pods := c.kube.CoreV1().Pods(namespace)
	pod, err := pods.Get(t.Context(), service+"-00001-pod", metav1.GetOptions{})
	require.NoError(t, err)
	require.NoError(t, pods.Delete(t.Context(), pod.Name, metav1.DeleteOptions{}))
	asked, ctx := make(chan error, 1), t.Context()
	go func() {
		_, err := c.target().Serving(ctx)
		asked <- err
	}()
	s := c.servers[service+"-00001"]
	require.Eventually(t, func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.asked > 0
	}, waitFor, tick, "the Service is asked, so that a pod starts")
	_, err = pods.Create(ctx, pod, metav1.CreateOptions{})
	require.NoError(t, err)
	require.NoError(t, <-asked)
}

func TestServingNothingIsNoError(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	c.change(func(svc *servingv1.Service) { svc.Spec.Traffic = nil })
	found, err := c.target().Serving(t.Context())
	require.NoError(t, err)
	require.Zero(t, found)
}

func TestServingWithoutServiceSaysWhichOne(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	_, err := knative.New(knative.Config{Serving: c.serving, Kubernetes: c.kube, Namespace: namespace, Service: "other", Network: network}).Serving(t.Context())
	require.ErrorContains(t, err, "Knative Service ebb/other")
}

func TestStagePinsTrafficBeforeThereIsAnotherRevision(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	address, err := c.target().Stage(t.Context(), candidate(2))
	require.NoError(t, err)
	require.Equal(t, c.url(service+"-00003").Host, address, "only the candidate is asked there")
	require.Equal(t, []string{"00001=100 current", "00003=0 candidate"}, c.traffic())
	require.Equal(t, []string{"00001=100 current"}, trafficOf(c.history[0]))
	require.Equal(t, server, c.history[0].Spec.Template.Spec.Containers[0].Image)
	require.Equal(t, "2", c.history[1].Spec.Template.Annotations["ebb.dev/version"])
	require.Equal(t, []string{"00001=100 current"}, trafficOf(c.history[1]))

	again, err := c.target().Stage(t.Context(), candidate(2))
	require.NoError(t, err)
	require.Equal(t, address, again)
	require.Len(t, c.history, 3, "what is done is not done again")
}

func TestStageFindsItsRevisionAgainWithoutTheFiles(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	_, err := c.target().Stage(t.Context(), candidate(2))
	require.NoError(t, err)
	without := candidate(2)
	without.Dir = ""
	_, err = c.target().Stage(t.Context(), without)
	require.NoError(t, err)
	without = candidate(3)
	without.Dir = ""
	_, err = c.target().Stage(t.Context(), without)
	require.ErrorContains(t, err, "its files are not here")
}

func TestStageOfTheSameVersionWithOtherFilesMakesAnotherRevision(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	_, err := c.target().Stage(t.Context(), candidate(2))
	require.NoError(t, err)
	anew := candidate(2)
	anew.Digest = "sha256:anew"
	_, err = c.target().Stage(t.Context(), anew)
	require.NoError(t, err)
	require.Equal(t, []string{"00001=100 current", "00005=0 candidate"}, c.traffic())
}

func TestStageTellsTheVersionsFaultFromTheClusters(t *testing.T) {
	t.Parallel()
	ended := func(reason string, restarts int32) behaviour {
		return starting(func(pod *corev1.Pod, _ *modelServer) {
			pod.Status.PodIP = ""
			containerStatus(pod, corev1.ContainerStatus{RestartCount: restarts, LastTerminationState: corev1.ContainerState{
				Terminated: &corev1.ContainerStateTerminated{Reason: reason, ExitCode: 1, Message: "bad graph"},
			}})
		})
	}
	for _, tc := range []struct {
		name    string
		behave  behaviour
		refused bool
		want    string
	}{
		{"it cannot be loaded", starting(func(_ *corev1.Pod, s *modelServer) { s.failed(2, "unexpected end of file") }), true, "cannot load it: DATA_LOSS: unexpected end of file"},
		{"it needs too much memory", ended("OOMKilled", 0), true, "more memory"},
		{"the server ends with it each time", ended("Error", 3), true, "the server ends with it: Error, exit code 1: bad graph"},
		{"the server ended once", ended("Error", 1), false, "the server ended: Error, exit code 1: bad graph"},
		{"its image cannot be pulled", starting(func(pod *corev1.Pod, _ *modelServer) {
			pod.Status.PodIP = ""
			containerStatus(pod, corev1.ContainerStatus{State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "ImagePullBackOff", Message: "no route to host"}}})
		}), false, "ImagePullBackOff: no route to host"},
		{"there is no node for it", starting(func(pod *corev1.Pod, _ *modelServer) {
			pod.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodScheduled, Status: corev1.ConditionFalse, Message: "0/1 nodes: Insufficient cpu"}}
		}), false, "no room for it: 0/1 nodes: Insufficient cpu"},
		{"it may have no pods", func(r *servingv1.Revision, pod *corev1.Pod, _ *modelServer) {
			condition(r, corev1.ConditionUnknown, "FailedCreate", "exceeded quota")
			pod.Name = ""
		}, false, "FailedCreate: exceeded quota"},
		{"it is still being loaded", starting(func(_ *corev1.Pod, s *modelServer) { s.states = nil }), false, "is starting"},
		{"the server looks elsewhere", func(_ *servingv1.Revision, _ *corev1.Pod, s *modelServer) { s.states[0].Version = 1 }, false, "serves version 1 instead"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			c := newCluster(t)
			c.behave[2] = tc.behave
			target := c.hurried()
			if tc.refused {
				target = c.target() // which is not waited for
			}
			_, err := target.Stage(t.Context(), candidate(2))
			require.ErrorContains(t, err, tc.want)
			require.Equal(t, tc.refused, isRefused(err), err)
			require.Contains(t, c.traffic(), "00001=100 current")

			require.NoError(t, c.target().Abandon(t.Context(), candidate(2)))
			require.Equal(t, []string{"00001=100 current"}, c.traffic())
			require.Equal(t, server, c.get().Spec.Template.Spec.Containers[0].Image)
			require.NotContains(t, c.revisions(), "00003")
		})
	}
}

func TestStageEndsWithItsContext(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	c.behave[2] = starting(func(*corev1.Pod, *modelServer) { cancel() })
	_, err := c.target().Stage(ctx, candidate(2))
	require.ErrorIs(t, err, context.Canceled)
	require.False(t, isRefused(err))
}

func TestStageTriesAgainWhatKnativeGaveUp(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	c.behave[2] = func(r *servingv1.Revision, pod *corev1.Pod, _ *modelServer) {
		condition(r, corev1.ConditionFalse, "ProgressDeadlineExceeded", "Initial scale was never achieved")
		pod.Name = ""
	}
	_, err := c.hurried().Stage(t.Context(), candidate(2))
	require.ErrorContains(t, err, "Initial scale was never achieved")
	delete(c.behave, 2)
	_, err = c.target().Stage(t.Context(), candidate(2))
	require.NoError(t, err)
	require.Equal(t, []string{"00001=100 current", "00004=0 candidate"}, c.traffic())
}

func TestChangesThatCameInBetweenAreKept(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	c.conflict = 3
	_, err := c.target().Stage(t.Context(), candidate(2))
	require.NoError(t, err)
	c.conflict = 3
	require.NoError(t, c.target().Shift(t.Context(), candidate(2), 10))
	require.Equal(t, []string{"00001=90 current", "00003=10 candidate"}, c.traffic())
}

func TestServerThatIsAppliedWhileAnImageIsBuiltIsNotLost(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	target := knative.New(knative.Config{
		Serving: c.serving, Kubernetes: c.kube, Namespace: namespace, Service: service, Network: network,
		Builder: meanwhile{builder{c}, func() { c.apply("registry/modelserver@sha256:50", 1) }},
	})
	_, err := target.Stage(t.Context(), candidate(2))
	require.ErrorContains(t, err, "another server was applied")
	require.Equal(t, "registry/modelserver@sha256:50", c.get().Spec.Template.Spec.Containers[0].Image)
}

// meanwhile is a builder during whose work something happens.
type meanwhile struct {
	builder
	happens func()
}

func (m meanwhile) Build(ctx context.Context, server, base, network string, c rollout.Candidate) (string, error) {
	image, err := m.builder.Build(ctx, server, base, network, c)
	m.happens()
	return image, err
}

func TestShiftMovesTrafficInSteps(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	target := c.target()
	_, err := target.Stage(t.Context(), candidate(2))
	require.NoError(t, err)
	for _, step := range []struct {
		percent int
		want    []string
		serving int64
	}{
		{10, []string{"00001=90 current", "00003=10 candidate"}, 1},
		{50, []string{"00001=50 current", "00003=50 candidate"}, 1},
		{90, []string{"00001=10 current", "00003=90 candidate"}, 2},
		{100, []string{"00003=100 current", "00001=0 previous"}, 2},
		{10, []string{"00003=100 current", "00001=0 previous"}, 2}, // by a process that did not know
	} {
		for range 2 {
			require.NoError(t, target.Shift(t.Context(), candidate(2), step.percent))
			require.Equal(t, step.want, c.traffic(), "%d percent", step.percent)
		}
		found, err := target.Serving(t.Context())
		require.NoError(t, err)
		require.Equal(t, rollout.Serving{Version: step.serving, Kept: []int64{1, 2}}, found)
	}
	require.Error(t, target.Shift(t.Context(), candidate(2), 0))
	require.ErrorContains(t, target.Shift(t.Context(), candidate(3), 10), "not staged")
}

func TestCandidateIsFoundAgainAtEveryStep(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	address, err := c.target().Stage(t.Context(), candidate(2))
	require.NoError(t, err)
	without := candidate(2)
	without.Dir = ""
	for _, percent := range []int{10, 50, 90} {
		require.NoError(t, c.target().Shift(t.Context(), without, percent))
		traffic := c.traffic()
		if percent == 50 { // ko apply, in the midst of it
			c.apply("registry/modelserver@sha256:50", 1)
		}
		again, err := c.target().Stage(t.Context(), without)
		require.NoError(t, err)
		require.Equal(t, address, again)
		require.Equal(t, traffic, c.traffic())
	}
	require.NoError(t, c.target().Shift(t.Context(), without, 100))
	require.Equal(t, []string{"00003=100 current", "00001=0 previous"}, c.traffic())
	found, err := c.target().Serving(t.Context())
	require.NoError(t, err)
	require.True(t, found.Renew, "and then with what was applied")
}

func TestFirstVersionOfAllServesAtOnce(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	c.change(func(svc *servingv1.Service) { svc.Status.LatestReadyRevisionName = "" }) // its image has no network
	require.Empty(t, c.traffic())
	_, err := c.target().Stage(t.Context(), candidate(2))
	require.NoError(t, err)
	require.NoError(t, c.target().Shift(t.Context(), candidate(2), 100))
	require.Equal(t, []string{"00003=100 current"}, c.traffic())
}

func TestAbandonGivesTrafficBackFromEveryStep(t *testing.T) {
	t.Parallel()
	for _, percent := range []int{0, 10, 50, 90, 100} {
		t.Run(fmt.Sprintf("%d percent", percent), func(t *testing.T) {
			t.Parallel()
			c := newCluster(t)
			c.rolledOut(2)
			c.shifted(3, percent)
			for range 2 {
				require.NoError(t, c.target().Abandon(t.Context(), given(3, percent)))
				require.Equal(t, "00003=100 current", c.traffic()[0])
				require.NotContains(t, c.revisions(), "00006")
			}
			svc := c.get()
			require.Equal(t, "2", svc.Spec.Template.Annotations["ebb.dev/version"], "the latest revision is one that serves what serves")
			found, err := c.target().Serving(t.Context())
			require.NoError(t, err)
			require.Equal(t, rollout.Serving{Version: 2, Kept: []int64{1, 2}}, found)
		})
	}
}

func TestReturnServesWhatIsKept(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	c.rolledOut(2)
	target := c.target()
	for range 2 {
		require.NoError(t, target.Return(t.Context(), 1))
		require.Equal(t, []string{"00001=100 current", "00003=0 previous"}, c.traffic())
	}
	require.NoError(t, target.Return(t.Context(), 2))
	require.Equal(t, []string{"00003=100 current", "00001=0 previous"}, c.traffic())
	require.ErrorIs(t, target.Return(t.Context(), 7), rollout.ErrGone)
	require.Equal(t, []string{"00003=100 current", "00001=0 previous"}, c.traffic())
}

func TestReturnInTheMidstOfARollOutEndsIt(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	c.rolledOut(2)
	c.shifted(3, 50)
	require.NoError(t, c.target().Return(t.Context(), 1))
	require.Equal(t, []string{"00001=100 current", "00003=0 previous"}, c.traffic())
	require.NoError(t, c.target().Abandon(t.Context(), given(3, 50)))
	require.Equal(t, []string{"00001=100 current", "00003=0 previous"}, c.traffic())
}

func TestWhatSomebodyDidWithKnIsWhatServes(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	c.rolledOut(2)
	// kn service update inception-v3 --traffic inception-v3-00001=100
	c.change(func(svc *servingv1.Service) {
		all, none := int64(100), int64(0)
		for i := range svc.Spec.Traffic {
			svc.Spec.Traffic[i].Percent = &none
			if svc.Spec.Traffic[i].RevisionName == service+"-00001" {
				svc.Spec.Traffic[i].Percent = &all
			}
		}
	})
	found, err := c.target().Serving(t.Context())
	require.NoError(t, err)
	require.Equal(t, rollout.Serving{Version: 1, Kept: []int64{1, 2}}, found)
	_, err = c.target().Stage(t.Context(), candidate(3))
	require.NoError(t, err)
	require.Equal(t, "00001=100 current", c.traffic()[0], "what served stays what it was, with its name")
}

func TestAddressesThatSomebodyGaveStay(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	c.change(func(svc *servingv1.Service) {
		svc.Spec.Traffic = append(svc.Spec.Traffic, servingv1.TrafficTarget{RevisionName: service + "-00001", Tag: "mine"})
	})
	c.rolledOut(2)
	require.NoError(t, c.target().Return(t.Context(), 1))
	require.Contains(t, c.traffic(), "00001=0 mine")
}

func TestServerThatWasAppliedAnewAsksToBeRolledOut(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	c.rolledOut(2)
	renew := func() bool {
		found, err := c.target().Serving(t.Context())
		require.NoError(t, err)
		require.EqualValues(t, 2, found.Version)
		return found.Renew
	}
	require.False(t, renew())
	c.apply(server, 1)
	require.Equal(t, "00003=100 current", c.traffic()[0], "traffic is pinned")
	require.False(t, renew(), "the same server is no news")
	c.apply("registry/modelserver@sha256:50", 1)
	require.Equal(t, "00003=100 current", c.traffic()[0])
	require.True(t, renew())

	target := c.target()
	_, err := target.Stage(t.Context(), candidate(2))
	require.NoError(t, err)
	require.NoError(t, target.Shift(t.Context(), candidate(2), 50))
	require.Equal(t, []string{"00003=50 current", "00008=50 candidate", "00001=0 previous"}, c.traffic())
	require.NoError(t, target.Shift(t.Context(), candidate(2), 100))
	require.Equal(t, []string{"00008=100 current", "00003=0 previous"}, c.traffic())
	require.Equal(t, "registry/modelserver@sha256:50", c.get().Spec.Template.Annotations["ebb.dev/server"])
	require.False(t, renew())
}

func TestSettingsThatWereAppliedAnewAskToBeRolledOut(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	c.rolledOut(2)
	c.change(func(svc *servingv1.Service) {
		svc.Spec.Template.Spec.Containers[0].Image = server
		svc.Spec.Template.Spec.Containers[0].Env = []corev1.EnvVar{{Name: "SESSIONS", Value: "4"}}
	})
	found, err := c.target().Serving(t.Context())
	require.NoError(t, err)
	require.True(t, found.Renew)
}

func TestServerThatFailsWithWhatServesIsAbandonedAlone(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	c.rolledOut(2)
	c.apply("registry/modelserver@sha256:50", 1)
	c.behave[2] = starting(func(_ *corev1.Pod, s *modelServer) { s.failed(2, "no such operator") })
	_, err := c.target().Stage(t.Context(), candidate(2))
	require.True(t, isRefused(err))
	delete(c.behave, 2)
	for range 2 {
		require.NoError(t, c.target().Abandon(t.Context(), candidate(2)))
		require.Equal(t, []string{"00003=100 current", "00001=0 previous"}, c.traffic())
		require.Contains(t, c.revisions(), "00003")
	}
	found, err := c.target().Serving(t.Context())
	require.NoError(t, err)
	require.False(t, found.Renew, "not again, until it is applied again")
}

// Who was to roll the version out anew died before there was anything of it, and now a newer one is published.
func TestCandidateThatWasNotStagedTakesNothingFromTheSameVersionThatServes(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	c.rolledOut(2)
	c.apply("registry/modelserver@sha256:50", 1)
	for range 2 {
		require.NoError(t, c.target().Abandon(t.Context(), candidate(2)))
		require.Equal(t, []string{"00003=100 current", "00001=0 previous"}, c.traffic())
		require.Contains(t, c.revisions(), "00003")
	}
}

func TestCandidateThatSomebodyMadeServeIsNotTakenBack(t *testing.T) {
	t.Parallel()
	for _, percent := range []int{60, 100} {
		t.Run(fmt.Sprintf("%d percent", percent), func(t *testing.T) {
			t.Parallel()
			c := newCluster(t)
			c.rolledOut(2)
			c.shifted(3, percent)
			before := c.traffic()
			for range 2 {
				require.NoError(t, c.target().Abandon(t.Context(), candidate(3)))
				require.Equal(t, before, c.traffic())
				require.Contains(t, c.revisions(), "00006")
			}
		})
	}
}

func TestPruneRemovesAllButWhatIsKept(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	for version := range int64(4) {
		c.rolledOut(version + 2)
	}
	require.Equal(t, []string{"00001", "00003", "00006", "00009", "00012"}, c.revisions())
	for range 2 {
		require.NoError(t, c.target().Prune(t.Context(), []int64{3, 4, 5}))
		require.Equal(t, []string{"00006", "00009", "00012"}, c.revisions())
	}
	require.Equal(t, []string{server + "+inception_v3/2-sha256:2"}, c.removed, "the server's own image is not ours to remove")
	found, err := c.target().Serving(t.Context())
	require.NoError(t, err)
	require.Equal(t, rollout.Serving{Version: 5, Kept: []int64{3, 4, 5}}, found)
}

func TestPruneNeverRemovesWhatServes(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	c.rolledOut(2)
	c.rolledOut(3)
	require.NoError(t, c.target().Return(t.Context(), 1))
	require.NoError(t, c.target().Prune(t.Context(), []int64{7}))
	require.Equal(t, []string{"00001=100 current"}, c.traffic())
	require.Contains(t, c.revisions(), "00001")
	require.NotContains(t, c.revisions(), "00003")
}

func TestPruneLeavesOneRevisionOfAVersion(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	c.rolledOut(2)
	for range 3 { // each leaves a revision that is like the one that serves
		_, err := c.target().Stage(t.Context(), candidate(3))
		require.NoError(t, err)
		require.NoError(t, c.target().Abandon(t.Context(), candidate(3)))
	}
	before := len(c.revisions())
	require.NoError(t, c.target().Prune(t.Context(), []int64{1, 2}))
	after := c.revisions()
	require.Less(t, len(after), before)
	require.Len(t, after, 3, "what serves, what served, and Knative's latest")
	require.NotContains(t, c.removed, server+"+inception_v3/2-sha256:2", "an image in use is not removed")
}
