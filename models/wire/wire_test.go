package wire_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/ebb-inference/ebb/models"
	"github.com/ebb-inference/ebb/models/tfserving"
	"github.com/ebb-inference/ebb/models/wire"
)

func TestItemIsWhatTheDefinitionSays(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name  string
		in    models.Input
		dtype tfserving.DType
		shape []int64
	}{
		{"bytes", models.Input{Kind: "tensor", DType: "uint8", Layout: "NHWC", Width: 4, Height: 3}, tfserving.Uint8, []int64{3, 4, 3}},
		{"numbers, channel by channel", models.Input{Kind: "tensor", DType: "float32", Layout: "NCHW", Width: 4, Height: 2}, tfserving.Float32, []int64{3, 2, 4}},
		{"encoded", models.Input{Kind: "encoded"}, tfserving.String, nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			dtype, shape := wire.Item(tc.in)
			require.Equal(t, tc.dtype, dtype)
			require.Equal(t, tc.shape, shape)
		})
	}
}
