package mirror_test

import (
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/ebb-inference/ebb/events"
	"github.com/ebb-inference/ebb/functions/local/mirror"
	"github.com/ebb-inference/ebb/models"
	"github.com/ebb-inference/ebb/models/picture"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// What the networks compute, the stack's test sees; here they are believed.
func TestAnAnswerToAnotherPictureOrOfAnotherModelIsNoticed(t *testing.T) {
	t.Parallel()
	folder := t.TempDir()
	require.NoError(t, mirror.WriteDefinitions(folder))
	read, err := models.ReadFolders(folder)
	require.NoError(t, err)
	require.Len(t, read, len(mirror.Names))
	for i, name := range mirror.Names {
		m := read[i]
		require.Equal(t, name, m.Name)
		for n := range 50 {
			data, err := mirror.Picture(n)
			require.NoError(t, err)
			img, err := picture.Decode(data, picture.DefaultLimits)
			require.NoError(t, err)
			tensor, err := picture.AppendTensor(nil, img, m.Input)
			require.NoError(t, err)
			row := make([]float32, len(tensor))
			for j, v := range tensor {
				if row[j] = float32(v) / 255; name == mirror.Negative {
					row[j] = 1 - row[j]
				}
			}
			a, err := m.Interpret(row)
			require.NoError(t, err)
			var top []events.Class
			for _, c := range a.Top {
				top = append(top, events.Class(c))
			}
			require.NoError(t, mirror.Check(name, n, top))
			require.Error(t, mirror.Check(name, n+1, top))
			require.Error(t, mirror.Check(mirror.Names[(i+1)%len(mirror.Names)], n, top))
			require.Error(t, mirror.Check(name, n, top[1:]))
			require.Error(t, mirror.Check(name, n, append(top[1:len(top):len(top)], top[1])))
		}
	}
}
