// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"maps"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"sigs.k8s.io/yaml"
)

// object is a manifest, or a part of one.
type object = map[string]any

// templater puts template actions into objects: as marks, which YAML leaves alone, and which give way to the actions in the end.
type templater struct{ actions []string }

var (
	valueMark = regexp.MustCompile(`xVALUE(\d+)x`)
	entryMark = regexp.MustCompile(`(?m)^( *)(?:- |[^\s:-][^\s:]*: )xENTRY(\d+)x$`)
)

// In the actions of an entry, these are its indentation, and two more.
const (
	sameIndentation   = "INDENT"
	deeperIndentation = "DEEPER"
)

// systemNamespace is where config/ has everything, and the release's namespace in the chart.
const systemNamespace = "apikey-system"

var wholeNamespace = regexp.MustCompile(`(?m): ` + systemNamespace + `$`)

// entry stands for a whole entry: it is the value of any key of a map, or an element of a list.
func (t *templater) entry(actions string) string { return t.mark("xENTRY%dx", actions) }

// value is the value of an expression, and stands for a scalar.
func (t *templater) value(expression string) string {
	return t.mark("xVALUE%dx", "{{ "+expression+" }}")
}

func (t *templater) mark(format, actions string) string {
	t.actions = append(t.actions, actions)
	return fmt.Sprintf(format, len(t.actions)-1)
}

// block is an entry of a map, whose value is a map or a list.
func (t *templater) block(key, expression string) string {
	return t.entry(fmt.Sprintf("%s: {{- toYaml %s | nindent %s }}", key, expression, deeperIndentation))
}

// optional is an entry of a map that is there unless the value is empty.
func (t *templater) optional(key, expression string) string {
	return t.entry(fmt.Sprintf("{{- with %s }}\n%s: {{- toYaml . | nindent %s }}\n{{- end }}", expression, key, deeperIndentation))
}

// entries are the entries of a map that is a value.
func (t *templater) entries(expression string) string {
	return t.entry("{{- with " + expression + " }}{{ toYaml . | nindent " + sameIndentation + " }}{{- end }}")
}

// when is an entry of a map or a list, as YAML, that is there on a condition.
func (t *templater) when(condition string, entry any) (string, error) {
	text, err := yaml.Marshal(entry)
	return t.entry(fmt.Sprintf("{{- if %s }}\n%s{{- end }}", condition, literal(string(text)))), err
}

// merge makes one of two that differ: what only a has is there on one condition, what only b has on the other.
func (t *templater) merge(a, b any, onlyA, onlyB string) (any, error) {
	if reflect.DeepEqual(a, b) {
		return a, nil
	}
	switch a := a.(type) {
	case object:
		if b, ok := b.(object); ok {
			return t.mergeMaps(a, b, onlyA, onlyB)
		}
	case []any:
		if b, ok := b.([]any); ok {
			return t.mergeLists(a, b, onlyA, onlyB)
		}
	}
	return nil, fmt.Errorf("%v and %v cannot be one template", a, b)
}

func (t *templater) mergeMaps(a, b object, onlyA, onlyB string) (object, error) {
	merged := maps.Clone(a)
	maps.Copy(merged, b)
	for key := range merged {
		inA, hasA := a[key]
		inB, hasB := b[key]
		var err error
		switch {
		case hasA && hasB:
			merged[key], err = t.merge(inA, inB, onlyA, onlyB)
		case hasA:
			merged[key], err = t.when(onlyA, object{key: inA})
		default:
			merged[key], err = t.when(onlyB, object{key: inB})
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", key, err)
		}
	}
	return merged, nil
}

// mergeLists merges the elements of lists that have as many named ones, such as containers. In other lists it keeps the order of both.
func (t *templater) mergeLists(a, b []any, onlyA, onlyB string) ([]any, error) {
	merged := []any{}
	if named(a) != "" && named(a) == named(b) {
		for i := range a {
			element, err := t.merge(a[i], b[i], onlyA, onlyB)
			if err != nil {
				return nil, err
			}
			merged = append(merged, element)
		}
		return merged, nil
	}
	has := func(list []any, element any) bool {
		return slices.ContainsFunc(list, func(other any) bool { return reflect.DeepEqual(element, other) })
	}
	for len(a)+len(b) > 0 {
		var element any
		var err error
		switch {
		case len(a) > 0 && len(b) > 0 && reflect.DeepEqual(a[0], b[0]):
			element, a, b = a[0], a[1:], b[1:]
		case len(a) > 0 && !has(b, a[0]):
			element, err = t.when(onlyA, a[:1])
			a = a[1:]
		case len(b) > 0 && !has(a, b[0]):
			element, err = t.when(onlyB, b[:1])
			b = b[1:]
		default:
			err = fmt.Errorf("%v and %v have a different order", a, b)
		}
		if err != nil {
			return nil, err
		}
		merged = append(merged, element)
	}
	return merged, nil
}

// named returns the names of the elements, or "" when one has none.
func named(list []any) string {
	var names []string
	for _, element := range list {
		o, _ := element.(object)
		name, ok := o["name"].(string)
		if !ok {
			return ""
		}
		names = append(names, name)
	}
	return strings.Join(names, ",")
}

// render writes an object as a template that is there on a condition; "" is always.
func (t *templater) render(o object, condition string) (string, error) {
	manifest, err := yaml.Marshal(o)
	if err != nil {
		return "", err
	}
	text := literal(string(manifest))
	for entryMark.MatchString(text) {
		text = entryMark.ReplaceAllStringFunc(text, func(line string) string {
			parts := entryMark.FindStringSubmatch(line)
			return indent(parts[1], strings.NewReplacer(
				sameIndentation, strconv.Itoa(len(parts[1])),
				deeperIndentation, strconv.Itoa(len(parts[1])+2),
			).Replace(t.action(parts[2])))
		})
	}
	text = valueMark.ReplaceAllStringFunc(text, func(m string) string { return t.action(valueMark.FindStringSubmatch(m)[1]) })
	if condition != "" {
		text = fmt.Sprintf("{{- if %s }}\n%s{{- end }}\n", condition, text)
	}
	return text, nil
}

func (t *templater) action(index string) string {
	i, err := strconv.Atoi(index)
	if err != nil {
		panic(err) // digits
	}
	return t.actions[i]
}

// literal has Helm leave what is there as it is, but for the namespace.
func literal(manifest string) string {
	text := strings.ReplaceAll(manifest, "{{", `{{ "{{" }}`)
	text = wholeNamespace.ReplaceAllString(text, ": {{ .Release.Namespace | quote }}")
	return strings.ReplaceAll(text, systemNamespace, "{{ .Release.Namespace }}")
}

func indent(indentation, text string) string {
	lines := strings.Split(strings.TrimSuffix(text, "\n"), "\n")
	return indentation + strings.Join(lines, "\n"+indentation)
}
