package edge_test

import (
	"bytes"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestAPoisonedPictureFailsAloneInItsBatch(t *testing.T) {
	t.Parallel()
	gate := serving.hold(poisoned)
	numbers := []int{1, 2, 3, poison, 4, 5, 6, 7}
	answers := make([]*httptest.ResponseRecorder, len(numbers))
	var asking sync.WaitGroup
	first := picture(t, 0)
	asking.Go(func() { infer(t, poisoned, first, "") })
	<-gate.came
	for i, n := range numbers {
		data := picture(t, n)
		asking.Go(func() { answers[i] = infer(t, poisoned, data, "") })
	}
	// When their pictures are decoded they wait for the only slot.
	require.Eventually(t, func() bool { return decoded(t, poisoned) == 1+len(numbers) }, patience, interval)
	close(gate.open)
	asking.Wait()
	for i, n := range numbers {
		if n != poison {
			answer(t, answers[i], n)
			continue
		}
		require.Equal(t, http.StatusUnprocessableEntity, answers[i].Code, "%s", answers[i].Body)
		require.Equal(t, "input-refused", failure(t, answers[i]).Code())
	}
	var together, alone bool
	for _, rows := range serving.called(poisoned) {
		for _, row := range rows {
			if bytes.Equal(row, serving.poison) {
				together, alone = together || len(rows) > 1, alone || len(rows) == 1
			}
		}
	}
	require.True(t, together, "the batch failed as a whole")
	require.True(t, alone, "and then in parts")
	requireCounts(t, deliveries, poisoned, map[string]int{"completed": len(numbers), "failed": 1})
	require.Empty(t, count(t, deadLetters, poisoned))
}

func TestAModelThatAlwaysFailsEndsInTheDeadLetterQueueAndItsCallerHearsWhy(t *testing.T) {
	t.Parallel()
	w := infer(t, failing, picture(t, 1), "")
	require.Equal(t, http.StatusBadGateway, w.Code, "%s", w.Body)
	p := failure(t, w)
	require.Equal(t, "gave-up", p.Code())
	require.Equal(t, "The model failed", p.Title)
	require.Contains(t, p.Detail, "3 attempts were made, and the last one was answered with status 500")
	require.Equal(t, 3, serving.computed(failing), "one attempt, and two retries")
	requireCounts(t, deliveries, failing, map[string]int{"retried": 3})
	requireCounts(t, deadLetters, failing, map[string]int{"told": 1})
	require.Equal(t, 1, waiting(t, failing), "letters")
}
