"""What Hyper-V's interfaces need of each other and of the machine, by the names that a manifest has for them. Pure.

Invariant: admission fills in what is missing and refuses what is switched off; the handler, for instances of before, does as admission.
"""

# What one interface needs, in an order in which nothing is needed by what comes later.
HYPERV_NEEDS = (
    ("synictimer", "synic"),
    ("synic", "vpindex"),
    ("tlbflush", "vpindex"),
    ("ipi", "vpindex"),
    ("evmcs", "vapic"),
)
# The one whose timers need clock.timer.hyperv.
NEEDS_TIMER = "synictimer"
# The one that needs a feature of processors, and that feature.
NEEDS_VMX, VMX = "evmcs", "vmx"
# The policies under which processors lack a feature.
LACKING = ("disable", "forbid")
