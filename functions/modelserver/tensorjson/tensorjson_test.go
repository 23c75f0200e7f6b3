package tensorjson_test

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/ebb-inference/ebb/functions/modelserver/tensorjson"
	"github.com/ebb-inference/ebb/models/tfserving"
)

func tensor(d tfserving.DType, shape []int64, elements ...any) tfserving.Tensor {
	t := tfserving.Tensor{DType: d, Shape: shape}
	for _, e := range elements {
		if s, ok := e.(string); ok {
			t.Strings = append(t.Strings, []byte(s))
			continue
		}
		var err error
		if t.Data, err = binary.Append(t.Data, binary.LittleEndian, e); err != nil {
			panic(err)
		}
	}
	return t
}

func one(d tfserving.DType) map[string]tfserving.TensorInfo {
	return map[string]tfserving.TensorInfo{"x": {DType: d}}
}

func two() map[string]tfserving.TensorInfo {
	return map[string]tfserving.TensorInfo{"a": {DType: tfserving.Float32}, "b": {DType: tfserving.Int64}}
}

func TestRequestsAreReadInRowAndColumnFormat(t *testing.T) {
	t.Parallel()
	f32 := tfserving.Float32
	for _, c := range []struct {
		name   string
		inputs map[string]tfserving.TensorInfo
		body   string
		want   map[string]tfserving.Tensor
		rows   bool
	}{
		{"rows of numbers", one(f32), `{"instances": [1, 2.5, -3e2]}`,
			map[string]tfserving.Tensor{"x": tensor(f32, []int64{3}, float32(1), float32(2.5), float32(-300))}, true},
		{"rows of lists", one(tfserving.Uint8), `{"instances":[[[1,2],[3,255]]]}`,
			map[string]tfserving.Tensor{"x": tensor(tfserving.Uint8, []int64{1, 2, 2}, []uint8{1, 2, 3, 255})}, true},
		{"rows with a name", one(f32), `{"instances":[{"x":[1]},{"x":[2]}]}`,
			map[string]tfserving.Tensor{"x": tensor(f32, []int64{2, 1}, float32(1), float32(2))}, true},
		{"rows of several inputs", two(), `{"instances":[{"a":1,"b":[10,20]},{"b":[30,40],"a":2}]}`,
			map[string]tfserving.Tensor{"a": tensor(f32, []int64{2}, float32(1), float32(2)),
				"b": tensor(tfserving.Int64, []int64{2, 2}, []int64{10, 20, 30, 40})}, true},
		{"columns", two(), `{"inputs":{"a":[1,2],"b":[[10],[20]]}}`,
			map[string]tfserving.Tensor{"a": tensor(f32, []int64{2}, float32(1), float32(2)),
				"b": tensor(tfserving.Int64, []int64{2, 1}, []int64{10, 20})}, false},
		{"a column without a name", one(f32), `{"inputs":[[1],[2]]}`,
			map[string]tfserving.Tensor{"x": tensor(f32, []int64{2, 1}, float32(1), float32(2))}, false},
		{"a scalar", one(tfserving.Float64), `{"inputs":0.1}`,
			map[string]tfserving.Tensor{"x": tensor(tfserving.Float64, nil, 0.1)}, false},
		{"empty lists", one(f32), `{"inputs":[[],[]]}`,
			map[string]tfserving.Tensor{"x": tensor(f32, []int64{2, 0})}, false},
		{"numbers that JSON has no words for", one(f32), `{"inputs":[Infinity,-Infinity]}`,
			map[string]tfserving.Tensor{"x": tensor(f32, []int64{2}, float32(math.Inf(1)), float32(math.Inf(-1)))}, false},
		{"truth values", one(tfserving.Bool), `{"inputs":[true,false]}`,
			map[string]tfserving.Tensor{"x": tensor(tfserving.Bool, []int64{2}, []uint8{1, 0})}, false},
		{"the ends of the ranges", one(tfserving.Uint64), `{"inputs":[0,18446744073709551615]}`,
			map[string]tfserving.Tensor{"x": tensor(tfserving.Uint64, []int64{2}, []uint64{0, math.MaxUint64})}, false},
		{"text", one(tfserving.String), `{"instances":["a","\u00e9\"\n"]}`,
			map[string]tfserving.Tensor{"x": tensor(tfserving.String, []int64{2}, "a", "é\"\n")}, true},
		{"bytes", one(tfserving.String), `{"instances":[{"b64":"/w=="},{"x":{"b64":""}}]}`, nil, true},
		{"bytes without a name", one(tfserving.String), `{"instances":[{"b64":"/w=="},"text"]}`,
			map[string]tfserving.Tensor{"x": tensor(tfserving.String, []int64{2}, "\xff", "text")}, true},
		{"bytes with a name", one(tfserving.String), `{"instances":[{"x":{"b64":"/w=="}}]}`,
			map[string]tfserving.Tensor{"x": tensor(tfserving.String, []int64{1}, "\xff")}, true},
		{"an input called b64", map[string]tfserving.TensorInfo{"b64": {DType: tfserving.String}}, `{"instances":[{"b64":"eA=="}]}`,
			map[string]tfserving.Tensor{"b64": tensor(tfserving.String, []int64{1}, "eA==")}, true},
		{"what else is there is skipped", one(f32), ` {"id":[{"a":"\""},null,1e9,true,{}], "inputs" : [ 1 ] } `,
			map[string]tfserving.Tensor{"x": tensor(f32, []int64{1}, float32(1))}, false},
	} {
		got, err := tensorjson.Decode([]byte(c.body), c.inputs)
		if c.want == nil {
			require.ErrorContains(t, err, "some entries name their inputs", c.name)
			continue
		}
		require.NoError(t, err, c.name)
		require.Equal(t, c.want, got.Inputs, c.name)
		require.Equal(t, c.rows, got.Rows, c.name)
		for _, x := range got.Inputs {
			require.NoError(t, x.Validate(), c.name)
		}
	}
	r, err := tensorjson.Decode([]byte(`{"instances":[NaN],"signature_name":"serving_default"}`), one(f32))
	require.NoError(t, err)
	require.Equal(t, "serving_default", r.Signature)
	values, err := r.Inputs["x"].Floats()
	require.NoError(t, err)
	require.True(t, math.IsNaN(float64(values[0])))
}

func TestMistakesInRequestsAreExplained(t *testing.T) {
	t.Parallel()
	f32, u8 := one(tfserving.Float32), one(tfserving.Uint8)
	for _, c := range []struct {
		inputs map[string]tfserving.TensorInfo
		body   string
		why    string
	}{
		{f32, ``, "byte 0: the end of the body where an object is expected"},
		{f32, `[1]`, "a list where an object is expected"},
		{f32, `{}`, `neither "instances" nor "inputs"`},
		{f32, `{"instances":[1],"inputs":[1]}`, `"inputs" after "instances"`},
		{f32, `{"inputs":[1],"inputs":[1]}`, `"inputs" after "inputs"`},
		{f32, `{"inputs":[1]} x`, "'x' after the end"},
		{f32, `{"inputs":[1]`, "the end of the body where a comma or the end of the object"},
		{f32, `{"inputs":[1 2]}`, "a number where a comma or the end of the list"},
		{f32, `{"inputs":[1,]}`, "where a number for DT_FLOAT is expected"},
		{f32, `{inputs:[1]}`, "where a key is expected"},
		{f32, `{"inputs" [1]}`, "where a colon is expected"},
		{f32, `{"inputs":["1"]}`, "a string where a number for DT_FLOAT is expected"},
		{f32, `{"inputs":[null]}`, "null where a number"},
		{f32, `{"inputs":[01]}`, "where a number"},
		{f32, `{"inputs":[1.]}`, "where a number"},
		{f32, `{"inputs":[.5]}`, "where a number"},
		{f32, `{"inputs":[+1]}`, "where a number"},
		{f32, `{"inputs":[1e]}`, "where a number"},
		{f32, `{"inputs":[-]}`, "where a number"},
		{f32, `{"inputs":[1e39]}`, "1e39 is out of range for DT_FLOAT"},
		{u8, `{"inputs":[256]}`, "256 is out of range for DT_UINT8"},
		{u8, `{"inputs":[-1]}`, "-1 is out of range for DT_UINT8"},
		{u8, `{"inputs":[1.0]}`, "1.0 is not a whole number, but DT_UINT8 is expected"},
		{one(tfserving.Int64), `{"inputs":[9223372036854775808]}`, "out of range for DT_INT64"},
		{one(tfserving.Uint64), `{"inputs":[-1]}`, "out of range for DT_UINT64"},
		{one(tfserving.Bool), `{"inputs":[1]}`, "a number where DT_BOOL is expected"},
		{one(tfserving.Float16), `{"inputs":[1]}`, "DT_HALF cannot be given in JSON"},
		{one(tfserving.String), `{"inputs":[1]}`, "a number where a string"},
		{one(tfserving.String), `{"inputs":[{"b64":"!"}]}`, "base64"},
		{one(tfserving.String), `{"inputs":[{"b64":"","x":1}]}`, "another key"},
		{one(tfserving.String), `{"inputs":["a]}`, "the string has no end"},
		{one(tfserving.String), `{"inputs":["\x"]}`, "the string is malformed"},
		{f32, `{"inputs":[[1,2],[3]]}`, "a list of 1 at depth 1, others have 2"},
		{f32, `{"inputs":[[1],2]}`, "at depth 1, others are at depth 2"},
		{f32, `{"inputs":[1,[2]]}`, "a list at depth 1 where others have elements"},
		{f32, `{"inputs":[[],[1]]}`, "at depth 1, others have 0"},
		{f32, `{"instances":[[1,2],[3]]}`, `entry 1: input "x": a list of 1 at depth 1, others have 2`},
		{f32, `{"instances":[1,[3]]}`, `entry 1: input "x": a list at depth 1`},
		{f32, `{"instances":1}`, "instances: must be a list, got a number"},
		{f32, `{"instances":[]}`, "instances: the list is empty"},
		{f32, `{"instances":[{"y":1}]}`, `there is no input "y", the inputs are ["x"]`},
		{f32, `{"instances":[{"x":1,"x":2}]}`, `entry 0: input "x" is there twice`},
		{f32, `{"inputs":{"x":1,"x":2}}`, `input "x" is there twice`},
		{two(), `{"instances":[{"a":1,"b":1},{"a":1}]}`, "entry 1: an input that other entries have is missing"},
		{two(), `{"instances":[{"a":1},{"a":1,"b":1}]}`, `entry 1: input "b" is missing in the entries before`},
		{two(), `{"instances":[1]}`, "several inputs, they must be named"},
		{two(), `{"inputs":[1]}`, "several inputs, they must be named"},
		{f32, `{"signature_name":1,"inputs":[1]}`, "signature_name must be a string, got a number"},
		{f32, `{"inputs":` + strings.Repeat("[", 100_000), "nested more than 64 deep"},
		{f32, `{"x":` + strings.Repeat("[", 100_000), "nested more than 64 deep"},
	} {
		_, err := tensorjson.Decode([]byte(c.body), c.inputs)
		require.ErrorIs(t, err, tfserving.ErrInvalid, c.body[:min(len(c.body), 80)])
		require.ErrorContains(t, err, c.why, c.body[:min(len(c.body), 80)])
	}
}

func TestAnswersAreWrittenInTheRequestsFormat(t *testing.T) {
	t.Parallel()
	f32 := tfserving.Float32
	single := map[string]tfserving.Tensor{"y": tensor(f32, []int64{2, 2}, float32(1), float32(0.1), float32(-2.5e-9), float32(3e20))}
	several := map[string]tfserving.Tensor{
		"y":          tensor(tfserving.Uint8, []int64{2}, []uint8{1, 2}),
		"a":          tensor(tfserving.Int64, []int64{2, 1}, []int64{-1, math.MaxInt64}),
		"text":       tensor(tfserving.String, []int64{2}, "<é>", "\""),
		"jpeg_bytes": tensor(tfserving.String, []int64{2}, "\xff", ""),
	}
	for _, c := range []struct {
		name    string
		rows    bool
		outputs map[string]tfserving.Tensor
		want    string
	}{
		{"rows, one output", true, single, `{"predictions":[[1.0,0.1],[-2.5e-09,3e+20]]}`},
		{"columns, one output", false, single, `{"outputs":[[1.0,0.1],[-2.5e-09,3e+20]]}`},
		{"rows, several outputs", true, several,
			`{"predictions":[{"a":[-1],"jpeg_bytes":{"b64":"/w=="},"text":"\u003cé\u003e","y":1},{"a":[9223372036854775807],"jpeg_bytes":{"b64":""},"text":"\"","y":2}]}`},
		{"columns, several outputs", false, several,
			`{"outputs":{"a":[[-1],[9223372036854775807]],"jpeg_bytes":[{"b64":"/w=="},{"b64":""}],"text":["\u003cé\u003e","\""],"y":[1,2]}}`},
		{"other types", false, map[string]tfserving.Tensor{
			"bool": tensor(tfserving.Bool, []int64{2}, []uint8{0, 1}), "f64": tensor(tfserving.Float64, nil, math.Pi),
			"half": tensor(tfserving.Float16, []int64{1}, uint16(0xc000)), "i16": tensor(tfserving.Int16, []int64{1}, int16(-3)),
			"i32": tensor(tfserving.Int32, []int64{1}, int32(-4)), "i8": tensor(tfserving.Int8, []int64{1}, int8(-2)),
			"u16": tensor(tfserving.Uint16, []int64{1}, uint16(65535)), "u32": tensor(tfserving.Uint32, []int64{1}, uint32(math.MaxUint32)),
			"u64": tensor(tfserving.Uint64, []int64{1}, uint64(math.MaxUint64)),
		}, `{"outputs":{"bool":[false,true],"f64":3.141592653589793,"half":[-2.0],"i16":[-3],"i32":[-4],"i8":[-2],"u16":[65535],"u32":[4294967295],"u64":[18446744073709551615]}}`},
		{"not numbers", false, map[string]tfserving.Tensor{"y": tensor(f32, []int64{3}, float32(math.NaN()), float32(math.Inf(1)), float32(math.Inf(-1)))},
			`{"outputs":[NaN,Infinity,-Infinity]}`},
		{"empty", true, map[string]tfserving.Tensor{"y": tensor(f32, []int64{2, 0})}, `{"predictions":[[],[]]}`},
	} {
		got, err := tensorjson.Append(nil, c.rows, c.outputs)
		require.NoError(t, err, c.name)
		require.Equal(t, c.want, string(got), c.name)
	}
	for _, c := range []struct {
		rows    bool
		outputs map[string]tfserving.Tensor
		why     string
	}{
		{true, map[string]tfserving.Tensor{"y": tensor(f32, nil, float32(1))}, "cannot be split into items"},
		{true, map[string]tfserving.Tensor{"a": tensor(f32, []int64{1}, float32(1)), "y": tensor(f32, []int64{2}, float32(1), float32(1))}, "cannot be split into items"},
		{false, map[string]tfserving.Tensor{"y": tensor(f32, []int64{2}, float32(1))}, "malformed tensor"},
		{false, nil, "there are no outputs"},
	} {
		_, err := tensorjson.Append(nil, c.rows, c.outputs)
		require.ErrorContains(t, err, c.why)
	}
}

// FuzzDecode holds that what is read is a valid tensor, that it was JSON, and that it reads the same after it was written.
func FuzzDecode(f *testing.F) {
	dtypes := []tfserving.DType{
		tfserving.Float32, tfserving.Float64, tfserving.Int8, tfserving.Uint8, tfserving.Int64, tfserving.Uint64,
		tfserving.Bool, tfserving.String, tfserving.Float16,
	}
	for _, seed := range []string{
		`{"instances":[[1,2],[3,4]]}`, `{"inputs":{"x":[[1.5e3],[-0]]},"signature_name":"s"}`, `{"instances":[{"x":"a"},{"x":{"b64":"/w=="}}]}`,
		`{"inputs":[NaN,Infinity,-Infinity]}`, `{"inputs":[[],[]]}`, `{"inputs":{"b64":"eA=="},"z":[{},[],null,true]}`, `{"instances":[true]}`, `{"inputs":1}`,
	} {
		for _, d := range dtypes {
			f.Add([]byte(seed), uint8(slices.Index(dtypes, d)))
		}
	}
	words := []string{"NaN", "Infinity"}
	f.Fuzz(func(t *testing.T, body []byte, d uint8) {
		inputs := one(dtypes[int(d)%len(dtypes)])
		r, err := tensorjson.Decode(body, inputs)
		if err != nil {
			require.ErrorIs(t, err, tfserving.ErrInvalid)
			return
		}
		plain := body
		for _, w := range words {
			plain = bytes.ReplaceAll(plain, []byte(w), []byte("1"))
		}
		require.True(t, json.Valid(plain), "not JSON: %q", body)
		if len(r.Inputs) == 0 {
			return
		}
		x := r.Inputs["x"]
		if err := x.Validate(); err != nil {
			require.Contains(t, err.Error(), "shape") // more dimensions or elements than a tensor may have
			return
		}
		if x.DType == tfserving.String {
			return // text that is not UTF-8 does not read the same
		}
		written, err := tensorjson.Append(nil, r.Rows, map[string]tfserving.Tensor{"x": x})
		require.NoError(t, err)
		written = bytes.Replace(bytes.Replace(written, []byte("predictions"), []byte("instances"), 1), []byte("outputs"), []byte("inputs"), 1)
		again, err := tensorjson.Decode(written, inputs)
		require.NoError(t, err, "%s", written)
		require.Equal(t, x, again.Inputs["x"])
	})
}

func BenchmarkDecode(b *testing.B) {
	var body bytes.Buffer
	body.WriteString(`{"instances":[[`)
	for i := range 224 * 224 * 3 {
		if i > 0 {
			body.WriteByte(',')
		}
		fmt.Fprintf(&body, "%.4f", float32(i%2000)/1000-1)
	}
	body.WriteString(`]]}`)
	b.SetBytes(int64(body.Len()))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := tensorjson.Decode(body.Bytes(), one(tfserving.Float32)); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkAppend(b *testing.B) {
	x := tfserving.Tensor{DType: tfserving.Float32, Shape: []int64{1, 224, 224, 3}}
	for i := range 224 * 224 * 3 {
		x.Data = binary.LittleEndian.AppendUint32(x.Data, math.Float32bits(float32(i%2000)/1000-1))
	}
	outputs := map[string]tfserving.Tensor{"x": x}
	var dst []byte
	b.ReportAllocs()
	for b.Loop() {
		var err error
		if dst, err = tensorjson.Append(dst[:0], true, outputs); err != nil {
			b.Fatal(err)
		}
	}
	b.SetBytes(int64(len(dst)))
}

func BenchmarkDecodeBytes(b *testing.B) {
	body := []byte(`{"instances":[{"b64":"` + base64.StdEncoding.EncodeToString(make([]byte, 150_000)) + `"}]}`)
	b.SetBytes(int64(len(body)))
	for b.Loop() {
		if _, err := tensorjson.Decode(body, one(tfserving.String)); err != nil {
			b.Fatal(err)
		}
	}
}
