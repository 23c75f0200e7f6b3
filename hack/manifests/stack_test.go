package manifests

import (
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/ebb-inference/ebb/models"
)

// programsOf are the variables that functions/local/stack gives to each program, and those that all get, as its source has them.
func programsOf(t *testing.T, file string) (programs map[string][]string, everybodys []string) {
	t.Helper()
	source, err := parser.ParseFile(token.NewFileSet(), file, nil, 0)
	require.NoError(t, err)
	// text is a string, or the constant of that name.
	constants := map[string]string{}
	text := func(e ast.Expr) string {
		switch e := e.(type) {
		case *ast.BasicLit:
			if s, err := strconv.Unquote(e.Value); err == nil {
				return s
			}
		case *ast.Ident:
			return constants[e.Name]
		}
		return ""
	}
	// variables are the names in the strings of an expression that assign.
	variables := func(n ast.Node) (names []string) {
		ast.Inspect(n, func(n ast.Node) bool {
			if e, ok := n.(ast.Expr); ok {
				if name, _, assigns := strings.Cut(text(e), "="); assigns && name == strings.ToUpper(name) {
					names = append(names, name)
				}
			}
			return true
		})
		return names
	}
	programs = map[string][]string{}
	for _, pass := range []func(ast.Node) bool{
		func(n ast.Node) bool { // constants, and variables that are made once: rabbit := "RABBITMQ_URL=" + ...
			switch n := n.(type) {
			case *ast.ValueSpec:
				for i, name := range n.Names {
					if i < len(n.Values) {
						constants[name.Name] = text(n.Values[i])
					}
				}
			case *ast.AssignStmt:
				id, named := n.Lhs[0].(*ast.Ident)
				if sum, ok := n.Rhs[0].(*ast.BinaryExpr); ok && named {
					if of := variables(sum); len(of) == 1 {
						constants[id.Name] = of[0] + "="
					}
				}
			case *ast.FuncDecl:
				if n.Name.Name == "start" {
					everybodys = variables(n.Body)
				}
			}
			return true
		},
		func(n ast.Node) bool {
			if call, ok := n.(*ast.CallExpr); ok {
				if f, ok := call.Fun.(*ast.SelectorExpr); ok && f.Sel.Name == "start" && len(call.Args) > 1 {
					program := text(call.Args[1])
					for _, arg := range call.Args[2:] {
						programs[program] = append(programs[program], variables(arg)...)
					}
				}
			}
			return true
		},
	} {
		ast.Inspect(source, pass)
	}
	return programs, everybodys
}

// What runs in containers and what tests run as processes is one topology: the same programs, told the same things.
func TestComposeIsTheStackInContainers(t *testing.T) {
	t.Parallel()
	programs, everybodys := programsOf(t, root+"/functions/local/stack/services.go")
	require.Equal(t, []string{"deadletter", "dispatch", "ingress", "modelserver"}, slices.Sorted(maps.Keys(programs)))
	for program, variables := range programs {
		known, err := System{Root: root}.settings(program)
		require.NoError(t, err)
		for _, v := range append(variables, "DRAIN_TIMEOUT") {
			require.True(t, known[v], "%s knows no variable %s", program, v)
		}
	}
	require.Contains(t, everybodys, "DRAIN_TIMEOUT")
	project, err := composed(t, composeFolder+"/compose.yaml")
	require.NoError(t, err)
	counts := map[string]int{}
	for name, service := range project.Services {
		image := strings.SplitN(service.Image, ":", 2)[0]
		function, ours := strings.CutPrefix(image, "ko.local/")
		counts[image[strings.LastIndexByte(image, '/')+1:]]++
		if !ours || name == "serving" {
			continue
		}
		for v := range service.Environment {
			if v != "ATTEMPTS" { // the mirror's Triggers are read by those who break them; nobody is told how often
				require.Contains(t, slices.Concat(programs[function], everybodys), v, "the stack does not tell %s %s", function, v)
			}
		}
	}
	all, err := models.ReadFolders(composeFolder + "/models")
	require.NoError(t, err)
	// In compose the broker's ingress has the same last name as Ebb's.
	require.Equal(t, map[string]int{
		"ingress": 2, "deadletter": 1, "dispatch": len(all), "dispatcher": 2 * (len(all) + 1), // for the Trigger of callbacks, too
		"rabbitmq": 1, "serving": 1, "curl": 1,
	}, counts)
}
