package v2

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// binaryRequest is a request for n elements with the tensor's bytes behind it, and the length of its JSON.
func binaryRequest(n int, tensor []byte) (body []byte, header string) {
	text := fmt.Sprintf(`{"inputs":[{"name":"image","shape":[%d],"datatype":"BYTES","parameters":{"binary_data_size":%d}}]}`, n, len(tensor))
	return append([]byte(text), tensor...), strconv.Itoa(len(text))
}

func TestParseRequestReadsElementsInOrder(t *testing.T) {
	t.Parallel()
	cat, dog := []byte("\xff\xd8cat"), []byte("dog\x00")
	binaryBody, binaryHeader := binaryRequest(2, AppendBytes(nil, [][]byte{cat, dog}))
	for name, tc := range map[string]struct {
		body   []byte
		header string
	}{
		"base64": {[]byte(`{"inputs":[{"name":"image","shape":[2],"datatype":"BYTES","data":["/9hjYXQ=","ZG9nAA=="]}]}`), ""},
		"base64, said to be": {[]byte(`{"inputs":[{"name":"i","shape":[2],"datatype":"BYTES","parameters":{"content_type":"base64"},
			"data":["/9hjYXQ=","ZG9nAA=="]}]}`), ""},
		"column":              {[]byte(`{"inputs":[{"name":"i","shape":[2,1],"datatype":"BYTES","data":[["/9hjYXQ="],["ZG9nAA=="]]}]}`), ""},
		"column, flat":        {[]byte(`{"inputs":[{"name":"i","shape":[2,1],"datatype":"BYTES","data":["/9hjYXQ=","ZG9nAA=="]}]}`), ""},
		"binary":              {binaryBody, binaryHeader},
		"unknown members too": {[]byte(`{"x":1,"inputs":[{"name":"i","shape":[2],"datatype":"BYTES","parameters":{"y":{}},"data":["/9hjYXQ=","ZG9nAA=="]}]}`), ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r, err := ParseRequest(tc.body, tc.header, 2)
			require.NoError(t, err)
			require.Equal(t, [][]byte{cat, dog}, r.Elements)
			require.Empty(t, r.Outputs)
			require.False(t, r.Binary)
		})
	}
}

func TestParseRequestReadsWhatIsWantedBack(t *testing.T) {
	t.Parallel()
	r, err := ParseRequest([]byte(`{"id":"a1","parameters":{"binary_data_output":true},
		"inputs":[{"name":"i","shape":[1],"datatype":"BYTES","data":[""]}],
		"outputs":[{"name":"label"},{"name":"probability","parameters":{"binary_data":false}}]}`), "", 1)
	require.NoError(t, err)
	require.Equal(t, &Request{ID: "a1", Elements: [][]byte{{}}, Binary: true,
		Outputs: []Output{{Name: "label", Binary: true}, {Name: "probability"}}}, r)
}

func TestParseRequestSaysWhatIsWrong(t *testing.T) {
	t.Parallel()
	input := func(rest string) string { return `{"inputs":[{"name":"i",` + rest + `}]}` }
	binaryInput := func(shape, size string) string {
		return input(`"datatype":"BYTES","shape":` + shape + `,"parameters":{"binary_data_size":` + size + `}`)
	}
	for name, tc := range map[string]struct{ json, tensor, header, want string }{
		"no JSON":                   {``, "", "", "JSON"},
		"broken JSON":               {`{"inputs":[}`, "", "", "after 12 bytes"},
		"two documents":             {`{"inputs":[]}{}`, "", "", "JSON"},
		"a list":                    {`[]`, "", "", "JSON"},
		"no inputs":                 {`{}`, "", "", "there are 0; send exactly one"},
		"two inputs":                {`{"inputs":[{},{}]}`, "", "", "there are 2; send exactly one"},
		"no datatype":               {input(`"shape":[1],"data":["AA=="]`), "", "", `"" is not BYTES`},
		"another datatype":          {input(`"shape":[1],"datatype":"FP32","data":[1]`), "", "", `"FP32" is not BYTES`},
		"another content type":      {input(`"shape":[1],"datatype":"BYTES","parameters":{"content_type":"str"},"data":["AA=="]`), "", "", "is not base64"},
		"no shape":                  {input(`"datatype":"BYTES","data":["AA=="]`), "", "", "[n] or [n, 1]"},
		"three dimensions":          {input(`"shape":[1,1,1],"datatype":"BYTES","data":["AA=="]`), "", "", "[n] or [n, 1]"},
		"two columns":               {input(`"shape":[1,2],"datatype":"BYTES","data":["AA==","AA=="]`), "", "", "[n] or [n, 1]"},
		"no elements":               {input(`"shape":[0],"datatype":"BYTES","data":[]`), "", "", "1 to 3 elements, not 0"},
		"negative":                  {input(`"shape":[-1],"datatype":"BYTES","data":["AA=="]`), "", "", "1 to 3 elements, not -1"},
		"too many elements":         {input(`"shape":[4],"datatype":"BYTES","data":["","","",""]`), "", "", "1 to 3 elements, not 4"},
		"a shape beyond int64":      {input(`"shape":[9223372036854775808],"datatype":"BYTES","data":["AA=="]`), "", "", "inputs.shape"},
		"a shape with a fraction":   {input(`"shape":[1.5],"datatype":"BYTES","data":["AA=="]`), "", "", "inputs.shape"},
		"no data":                   {input(`"shape":[1],"datatype":"BYTES"`), "", "", "data: it is missing"},
		"fewer data than the shape": {input(`"shape":[2],"datatype":"BYTES","data":["AA=="]`), "", "", "1 elements, but the shape says 2"},
		"more data than the shape":  {input(`"shape":[1],"datatype":"BYTES","data":["AA==","AA=="]`), "", "", "2 elements, but the shape says 1"},
		"a row of two":              {input(`"shape":[1,1],"datatype":"BYTES","data":[["AA==","AA=="]]`), "", "", "row 0 has 2"},
		"nested without need":       {input(`"shape":[1],"datatype":"BYTES","data":[["AA=="]]`), "", "", "list of base64 strings"},
		"numbers":                   {input(`"shape":[1],"datatype":"BYTES","data":[7]`), "", "", "list of base64 strings"},
		"not base64":                {input(`"shape":[2],"datatype":"BYTES","data":["AA==","cat!"]`), "", "", "element 1 is not base64"},

		"header not a number":      {`{}`, "", "ten", "not a number of bytes"},
		"header negative":          {`{}`, "", "-1", "not a number of bytes"},
		"header beyond the body":   {`{}`, "", "3", "within the body of 2"},
		"header beyond 64 bits":    {`{}`, "", "99999999999999999999", "not a number of bytes"},
		"header 0":                 {`{}`, "", "0", "JSON"},
		"size without header":      {binaryInput("[1]", "4"), "", "", "needs the HTTP header"},
		"size and data":            {input(`"datatype":"BYTES","shape":[1],"data":["AA=="],"parameters":{"binary_data_size":4}`), "\x00\x00\x00\x00", "json", "exclude each other"},
		"bytes that nobody claims": {input(`"datatype":"BYTES","shape":[1],"data":["AA=="]`), "x", "json", "1 bytes follow the JSON"},
		"size too small":           {binaryInput("[1]", "4"), "\x01\x00\x00\x00x", "json", "it is 4, but 5 bytes follow"},
		"size too large":           {binaryInput("[1]", "6"), "\x01\x00\x00\x00x", "json", "it is 6, but 5 bytes follow"},
		"size negative":            {binaryInput("[1]", "-1"), "", "json", "it is -1, but 0 bytes follow"},
		"size beyond 64 bits":      {binaryInput("[1]", "18446744073709551616"), "", "json", "binary_data_size"},
		"no room for n lengths":    {binaryInput("[2]", "7"), "\x00\x00\x00\x00\x00\x00\x00", "json", "7 bytes cannot hold 2 elements"},
		"ends in a length":         {binaryInput("[2]", "10"), "\x04\x00\x00\x00abcd\x00\x00", "json", "ends in the length of element 1"},
		"element beyond the end":   {binaryInput("[1]", "6"), "\x03\x00\x00\x00ab", "json", "element 0 has 3 bytes, but 2 are left"},
		"element of 4 GiB":         {binaryInput("[1]", "5"), "\xff\xff\xff\xffa", "json", "element 0 has 4294967295 bytes, but 1 are left"},
		"bytes after the last":     {binaryInput("[1]", "6"), "\x01\x00\x00\x00ab", "json", "1 bytes are left after 1 elements"},
		"sixty-five outputs": {`{"inputs":[{"name":"i","shape":[1],"datatype":"BYTES","data":[""]}],"outputs":[` +
			strings.TrimSuffix(strings.Repeat(`{"name":"label"},`, 65), ",") + `]}`, "", "", "at most 64"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			header := tc.header
			if header == "json" {
				header = strconv.Itoa(len(tc.json))
			}
			_, err := ParseRequest([]byte(tc.json+tc.tensor), header, 3)
			require.ErrorContains(t, err, tc.want)
		})
	}
}

func TestElementsOfABinaryTensorAreNotCopied(t *testing.T) {
	t.Parallel()
	body, header := binaryRequest(1, AppendBytes(nil, [][]byte{[]byte("cat")}))
	r, err := ParseRequest(body, header, 1)
	require.NoError(t, err)
	require.Same(t, &body[len(body)-3], &r.Elements[0][0])
	require.Equal(t, 3, cap(r.Elements[0]), "appending to an element must not write into the next")
}

func tensors() []Tensor {
	return []Tensor{
		{Name: "label", Datatype: Bytes, Shape: []int64{2, 1}, Strings: []string{"tabby", "dog"}},
		{Name: "probability", Datatype: FP32, Shape: []int64{2, 1}, Floats: []float32{0.5, 0.25}},
		{Name: "answer", Datatype: Bool, Shape: []int64{2}, Bools: []bool{true, false}},
	}
}

func TestEncodeWritesJSON(t *testing.T) {
	t.Parallel()
	body, header, err := (&Response{ModelName: "cat", ModelVersion: "3", ID: "a1", Parameters: map[string]any{"batch_size": 2}, Outputs: tensors()}).Encode()
	require.NoError(t, err)
	require.Zero(t, header)
	require.JSONEq(t, `{"model_name":"cat","model_version":"3","id":"a1","parameters":{"batch_size":2},"outputs":[
		{"name":"label","shape":[2,1],"datatype":"BYTES","data":["tabby","dog"]},
		{"name":"probability","shape":[2,1],"datatype":"FP32","data":[0.5,0.25]},
		{"name":"answer","shape":[2],"datatype":"BOOL","data":[true,false]}]}`, string(body))
}

func TestEncodeWritesBinaryTensorsBehindTheJSON(t *testing.T) {
	t.Parallel()
	selected, err := (&Request{Outputs: []Output{{Name: "answer", Binary: true}, {Name: "label"}, {Name: "probability", Binary: true}}}).Select(tensors())
	require.NoError(t, err)
	body, header, err := (&Response{ModelName: "cat", Outputs: selected}).Encode()
	require.NoError(t, err)
	require.JSONEq(t, `{"model_name":"cat","outputs":[
		{"name":"answer","shape":[2],"datatype":"BOOL","parameters":{"binary_data_size":2}},
		{"name":"label","shape":[2,1],"datatype":"BYTES","data":["tabby","dog"]},
		{"name":"probability","shape":[2,1],"datatype":"FP32","parameters":{"binary_data_size":8}}]}`, string(body[:header]))
	want := binary.LittleEndian.AppendUint32([]byte{1, 0}, math.Float32bits(0.5))
	require.Equal(t, binary.LittleEndian.AppendUint32(want, math.Float32bits(0.25)), body[header:])
}

func TestSelectAllInBinaryForm(t *testing.T) {
	t.Parallel()
	selected, err := (&Request{Binary: true}).Select(tensors())
	require.NoError(t, err)
	body, header, err := (&Response{Outputs: selected}).Encode()
	require.NoError(t, err)
	var got responseJSON
	require.NoError(t, json.Unmarshal(body[:header], &got))
	require.Len(t, got.Outputs, 3)
	labels, err := DecodeBytes(body[header:header+16], 2)
	require.NoError(t, err)
	require.Equal(t, [][]byte{[]byte("tabby"), []byte("dog")}, labels)
	require.Len(t, body[header:], 16+8+2)
}

func TestSelectNamesAnUnknownOutput(t *testing.T) {
	t.Parallel()
	_, err := (&Request{Outputs: []Output{{Name: "classes"}}}).Select(tensors())
	require.ErrorContains(t, err, `no output "classes"`)
}

// FuzzBinaryTensors: whatever arrives is refused with a reason or taken apart completely.
func FuzzBinaryTensors(f *testing.F) {
	for _, elements := range [][][]byte{{[]byte("cat")}, {{}, []byte("dog")}, {make([]byte, 300), {1}, {2, 3}}} {
		body, header := binaryRequest(len(elements), AppendBytes(nil, elements))
		f.Add(body, header)
	}
	f.Add([]byte(`{"inputs":[{"name":"i","shape":[2],"datatype":"BYTES","data":["AA==",""]}]}`), "")
	f.Add([]byte(`{"inputs":[{"name":"i","shape":[1,1],"datatype":"BYTES","data":[["AA=="]]}],"outputs":[{"name":"label"}]}`), "")
	f.Add([]byte("{\"inputs\":[{\"shape\":[1],\"datatype\":\"BYTES\",\"parameters\":{\"binary_data_size\":5}}]}\xff\xff\xff\xffa"), "77")
	f.Add([]byte("{}"), "18446744073709551615")
	f.Fuzz(func(t *testing.T, body []byte, header string) {
		const most = 16
		r, err := ParseRequest(body, header, most)
		if err != nil {
			require.NotEmpty(t, err.Error())
			return
		}
		require.NotEmpty(t, r.Elements)
		require.LessOrEqual(t, len(r.Elements), most)
		if header == "" || json.Valid(body) {
			return
		}
		// Binary elements are the body's tail, so writing them again gives the same bytes.
		tail := AppendBytes(nil, r.Elements)
		require.Equal(t, body[len(body)-len(tail):], tail)
		n, err := strconv.Atoi(header)
		require.NoError(t, err)
		require.Len(t, tail, len(body)-n)
	})
}
