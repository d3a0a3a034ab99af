"""What an account may do, by the API server's own words."""

from __future__ import annotations

from tools.cluster.kubectl import Kubectl


def rights(kubectl: Kubectl, account: str, namespace: str) -> str:
    """Return what an account may and others may not: that is to discover and to ask.

    Args:
        kubectl: The cluster.
        account: Namespace and name, with a colon.
        namespace: In which it would act.
    """
    own, anybody = (
        {" ".join(line.split()) for line in kubectl(*ask).splitlines()}
        for ask in (
            ("auth", "can-i", "--list", "-n", namespace, f"--as=system:serviceaccount:{one}")
            for one in (account, f"{namespace}:anybody")
        )
    )
    return "".join(f"{line}\n" for line in sorted(own - anybody))
