"""Who asks, and what he may see: Airflow's own permissions, asked anew for each request."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sealflow_airflow.ui.search import Sight

if TYPE_CHECKING:
    from airflow.api_fastapi.auth.managers.models.base_user import BaseUser
    from starlette.requests import HTTPConnection


async def user_of(request: HTTPConnection) -> BaseUser:
    """Return who is signed in.

    Raises:
        HTTPException: 401: nobody; 403: with a token that is none.
    """
    from airflow.api_fastapi.core_api.security import bearer_scheme, get_user

    found: Any = request
    return await get_user(found, None, await bearer_scheme(found))


def may_see_pages(user: BaseUser) -> bool:
    """Tell whether somebody may see plugins at all."""
    from airflow.api_fastapi.app import get_auth_manager
    from airflow.api_fastapi.auth.managers.models.resource_details import AccessView

    return bool(get_auth_manager().is_authorized_view(access_view=AccessView.PLUGINS, user=user))


def sight_of(user: BaseUser) -> Sight:
    """Return what somebody may see: the DAGs whose task instances he may, and the rest if he may see all of them.

    The rest is whatever belongs to no DAG that Airflow knows. Auth managers answer what is asked of no DAG in their own
    ways, so it is not enough that they say yes; and where DAGs belong to teams nobody can say whose the rest is.
    """
    from airflow.api_fastapi.app import get_auth_manager
    from airflow.api_fastapi.auth.managers.models.resource_details import DagAccessEntity
    from airflow.configuration import conf

    manager = get_auth_manager()
    if not manager.is_authorized_dag(method="GET", access_entity=DagAccessEntity.TASK_INSTANCE, user=user):
        return Sight()
    dags = frozenset(manager.get_authorized_dag_ids(user=user, method="GET"))
    everything = (
        manager.is_authorized_dag(method="GET", user=user)
        and manager.is_authorized_dag(method="GET", access_entity=DagAccessEntity.AUDIT_LOG, user=user)
        and dags >= known_dags()
    )
    return Sight(dags, everything and not conf.getboolean("core", "multi_team", fallback=False), everything)


def may_see_dag(user: BaseUser, dag_id: str, *, audit: bool = False) -> bool:
    """Tell whether somebody may see a DAG's task instances, or with ``audit`` its audit log.

    A DAG that Airflow does not know is nobody's, so nobody learns which ones there are.
    """
    from airflow.api_fastapi.app import get_auth_manager
    from airflow.api_fastapi.auth.managers.models.resource_details import DagAccessEntity, DagDetails
    from airflow.models.dag import DagModel

    if not dag_id or dag_id not in known_dags(dag_id):
        return False
    details = DagDetails(id=dag_id, team_name=DagModel.get_team_name(dag_id))
    manager = get_auth_manager()
    entity = DagAccessEntity.AUDIT_LOG if audit else DagAccessEntity.TASK_INSTANCE
    return bool(
        manager.is_authorized_dag(method="GET", details=details, user=user)
        and manager.is_authorized_dag(method="GET", access_entity=entity, details=details, user=user)
    )


def known_dags(only: str | None = None) -> frozenset[str]:
    """Return the ids of the DAGs that Airflow knows, or of one."""
    from airflow.models.dag import DagModel
    from airflow.utils.session import create_session
    from sqlalchemy import select

    asked = select(DagModel.dag_id)
    with create_session() as session:
        return frozenset(session.scalars(asked if only is None else asked.where(DagModel.dag_id == only)))
