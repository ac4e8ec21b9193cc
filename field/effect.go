package field

// EffectOp says what a target does to a field.
type EffectOp uint8

// The effects. With SetTo the field becomes Val; with Mix it becomes
// (old &^ Mask) ^ Val, as MARK --set-xmark does; with Fresh it becomes some value
// of Range; with Forget nothing is known afterwards.
const (
	SetTo EffectOp = iota
	Mix
	Fresh
	Forget
)

// Effect is what a target declares to do to one field.
type Effect struct {
	Op        EffectOp
	ID        ID
	Val, Mask Value
	Range     Set
}

// Apply returns the value after the effect on a known one. It is false where the
// effect leaves a choice.
func (e Effect) Apply(old Value) (Value, bool) {
	switch e.Op {
	case SetTo:
		return e.Val, true
	case Mix:
		return old.AndNot(e.Mask).Xor(e.Val), true
	}
	return Value{}, false
}
