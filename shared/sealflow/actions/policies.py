"""Which policies surround an action, and what they say about one artifact."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

from sealflow.actions.context import Surroundings
from sealflow.actions.places import readings_of
from sealflow.audit.event import utc_now
from sealflow.errors import PolicyError, UnavailableError, UsageError
from sealflow.findings import Finding, printable
from sealflow.keys import load_public_key
from sealflow.policy.compose import Arguments, Ruling, compose, waived_rules
from sealflow.policy.requirement import NOTHING_REVOKED
from sealflow.storage import Storages
from sealflow.storage.local import LocalStorage

if TYPE_CHECKING:
    from sealflow.policy.compose import CompiledPolicy
    from sealflow.policy.requirement import KnownRecipient
    from sealflow.policy.source import InForce


# Names that S3 gives to access points: other names of a bucket, and only the service knows of which.
_ACCESS_POINTS: Final = ("-s3alias", "--ol-s3")


def places_of(canonical: str, mounts: Mapping[str, str] | None = None) -> tuple[str, ...]:
    """Return every reading of a location to which rules may apply, see :func:`sealflow.actions.places.readings_of`.

    Args:
        canonical: The location as its storage writes it.
        mounts: Folders in which an orchestrator shows object stores, and the locations that they show.

    Raises:
        UsageError: The location is another name of a place, and nobody here can tell of which.
    """
    found = readings_of(canonical, mounts)
    if found[0].startswith("s3://") and found[0][5:].partition("/")[0].endswith(_ACCESS_POINTS):
        raise UsageError(
            f"{printable(canonical)} names an access point, and no rule can say what lies behind it.",
            next_step="Write the bucket itself: s3://bucket/key.",
        )
    return found


class Policies(NamedTuple):
    """What the policies around an action say about one artifact.

    Attributes:
        places: All readings of the artifact's location.
        in_force: The admin's policy; ``None`` where none is configured, or it is not to be had and the artifact is not
            managed.
        chain: The policies in their order: the admin's, the teams', the call's.
        surroundings: Who acts.
    """

    places: tuple[str, ...]
    in_force: InForce | None
    chain: tuple[CompiledPolicy, ...]
    surroundings: Surroundings

    @property
    def hide(self) -> bool:
        """Whether rules or delegations may name something in a folder that only its listing shows."""
        return any(policy.hides for policy in self.chain)

    def listed(self, contents: Sequence[str]) -> Policies:
        """Return the same with the policies of all teams to which something in a folder was given.

        Args:
            contents: Names of all files in it.

        Raises:
            UnavailableError: A team's policy is not to be had.
        """
        if self.in_force is None or not self.in_force.policy.document.delegations:
            return self
        from sealflow.policy.compose import CALL_PREFIX
        from sealflow.policy.source import team_policies

        teams = team_policies(self.in_force, self.places, Storages(), utc_now(), contents)
        added = [item for item in self.chain if item.prefix == CALL_PREFIX]
        return self._replace(chain=(self.in_force.policy, *teams, *added))

    def ruling(self, arguments: Arguments, names: Iterable[str] = (), contents: Sequence[str] = ()) -> Ruling:
        """Return what must be proved.

        Args:
            arguments: The call's own demands.
            names: Signed logical names of the artifact, as far as they are known.
            contents: Names of all files in it, as far as they are known.

        Raises:
            PolicyError: ``POLICY_LOCKED``: the call sets what a rule locks, or loosens.
        """
        return compose(
            self.chain,
            arguments,
            places=self.places,
            names=names,
            contents=contents,
            run=self.surroundings.run,
            waivers=self.in_force.waivers if self.in_force is not None else (),
            revoked=self.in_force.revoked if self.in_force is not None else NOTHING_REVOKED,
            now=utc_now(),
        )

    def findings(self, ruling: Ruling, subject: str) -> tuple[Finding, ...]:
        """Return what a verdict should say about the policy itself."""
        if self.in_force is None:
            return ()
        found = self.in_force.findings
        if not ruling.managed:
            note = Finding("NOT_MANAGED", "note", subject, "The call alone says what must be proved.")
            return (*found, note)
        return found

    @property
    def signer(self) -> str | None:
        """The signer that the policies choose for the artifact in this task."""
        for policy in self.chain:
            if (uri := policy.signer_for(self.places, self.surroundings.run)) is not None:
                return uri
        return None

    def recipients(self, names: Iterable[str] = ()) -> tuple[KnownRecipient, ...]:
        """Return to whom an artifact must be encrypted here, beside those whom the call names: each key once.

        What audited rules require is among them, so that nothing is missing when they are enforced; what waived rules
        require is not, since its key service may be the reason.

        Args:
            names: Logical names under which the artifact will be signed.

        Raises:
            PolicyError: Policies cannot be joined.
        """
        ruling = self.ruling(Arguments(), names)
        waived, _ = waived_rules(ruling, "")
        demands = [demand for demand in ruling.requirement.recipients if demand.rule not in waived]
        found: dict[tuple[str, bytes, str], KnownRecipient] = {}
        for item in (item for demand in demands for item in demand.required):
            # By the key too: a team's key under the header's name of an admin's must not take its place.
            found.setdefault((*item.mark, item.key), item)
        return tuple(found.values())


def policies_for(canonical: str, surroundings: Surroundings, added: str | CompiledPolicy | None = None) -> Policies:
    """Return the policies around an action on one artifact.

    Args:
        canonical: The artifact's location as its storage writes it.
        surroundings: Who acts, and the admin's channel.
        added: One more policy, a draft's path or a policy already read; it can only tighten.

    Raises:
        UnavailableError: ``POLICY_UNAVAILABLE`` or ``POLICY_TOO_NEW``, for a managed artifact.
        PolicyError: The added policy cannot be taken.
        UsageError: A policy is configured, and nobody can tell what the location names.
    """
    if surroundings.admin is None and added is None:
        return Policies((canonical,), None, (), surroundings)
    return policies_at(places_of(canonical, surroundings.mounts), surroundings, added)


def policies_at(
    places: tuple[str, ...], surroundings: Surroundings, added: str | CompiledPolicy | None = None
) -> Policies:
    """Return what :func:`policies_for` does, for an artifact that may be known under several locations, or under none.

    Args:
        places: All readings of all its locations, see :func:`places_of`.
        surroundings: Who acts, and the admin's channel.
        added: One more policy.

    Raises:
        UnavailableError: ``POLICY_UNAVAILABLE`` or ``POLICY_TOO_NEW``, for an artifact that is managed or has no place.
        PolicyError: The added policy cannot be taken.
    """
    channel = surroundings.admin
    in_force = None
    chain: list[CompiledPolicy] = []
    if channel is not None:
        from sealflow.policy.source import policy_in_force, team_policies

        now = utc_now()
        try:
            # Read with the process's own credentials, never with those that a call brings for its artifact.
            own = Storages()
            in_force = policy_in_force(channel, own, now)
            chain = [in_force.policy, *team_policies(in_force, places, own, now)]
        except UnavailableError:
            # Without a place nobody can tell whether it is managed.
            if in_force is not None or not places or channel.manages(places):
                raise
    if added is not None:
        chain.append(read_added(added))
    return Policies(places, in_force, tuple(chain), surroundings)


def read_added(added: str | CompiledPolicy, keys: Sequence[str] = ()) -> CompiledPolicy:
    """Return a policy that a call adds.

    Args:
        added: The path of a draft, or of a signed policy; or a policy already read.
        keys: Public keys one of which must have signed it; needed for a signed policy.

    Raises:
        PolicyError: The policy cannot be taken, or has expired.
        UsageError: There is none at this path, or a signed one comes without a key.
    """
    from sealflow.policy.compose import CALL_PREFIX, CompiledPolicy
    from sealflow.policy.signed import MAX_SIGNED

    if isinstance(added, CompiledPolicy):
        # Without the name of an added one it would rank with the admin's.
        if added.prefix != CALL_PREFIX or added.document.delegations:
            raise PolicyError("A policy that a call adds is read by `read_added`.")
        return added
    team = CALL_PREFIX.rstrip("/")
    signed = LocalStorage().get(added, MAX_SIGNED) if keys or added.endswith(".json") else None
    if signed is not None and (keys or b'"dsseEnvelope"' in signed):
        from sealflow.policy.source import open_policy

        if not keys:
            raise UsageError(
                f"{printable(added)} is a signed policy; name the key that must have signed it.",
                next_step="Give --policy-key, or the draft from which it was signed.",
            )
        try:
            made, _ = open_policy(signed, [load_public_key(key) for key in keys], 1, added, team=team)
        except UnavailableError as error:
            raise PolicyError(error.message, next_step=error.next_step) from None
    else:
        import hashlib

        from sealflow.policy.draft import read_draft

        draft = read_draft(added)
        made = CompiledPolicy(draft.policy(), digest=hashlib.sha256(draft.json).hexdigest(), uri=added, team=team)
    if made.document.delegations:
        raise PolicyError(f"{printable(added)} delegates, which only an admin's policy can.")
    if utc_now() >= made.document.expires:
        raise PolicyError(f"{printable(added)} has expired.", next_step="Give it a later `expires`.")
    return made
