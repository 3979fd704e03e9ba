"""The web server: it stores phone numbers, finds them and shows their last four digits, and cannot read them.

DATABASE_URL=postgresql+psycopg://... KMSBRIDGE_CONFIG=web.toml uvicorn examples.web.app:app
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated
from uuid import UUID

from fastapi import Depends, FastAPI, Header, HTTPException, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from starlette.concurrency import run_in_threadpool

from examples.web.models import PHONES, Customer
from kmsbridge import RoleError, aio, harden_process
from kmsbridge.integrations.sqlalchemy import bind, decrypt_all

sessions = async_sessionmaker(expire_on_commit=False)


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[None]:
    """Open the ciphers of this host's profiles. There is none that decrypts phone numbers."""
    harden_process()
    engine = create_async_engine(os.environ["DATABASE_URL"])
    async with (
        aio.Encryptor.from_config(profile="phones") as encryptor,
        aio.EnvelopeCipher.from_config(profile="parts") as parts,
    ):
        await run_in_threadpool(PHONES.load_keys)
        sessions.configure(bind=engine)
        bind(sessions, write=encryptor, partial=parts)
        yield
    await engine.dispose()


app = FastAPI(lifespan=lifespan)


async def session() -> AsyncIterator[AsyncSession]:
    """Give each request a session of its own."""
    async with sessions() as opened:
        yield opened


Session = Annotated[AsyncSession, Depends(session)]
# In place of a login: yours takes the tenant from what it has verified, never from what a request says.
Tenant = Annotated[str, Header(alias="X-Tenant")]


class New(BaseModel):
    """The fields of the form for a new customer."""

    name: str
    phone: str


class Shown(BaseModel):
    """What may be shown of a customer."""

    id: UUID
    name: str
    phone: str

    @classmethod
    def of(cls, customer: Customer) -> Shown:
        """Return what may be shown. The part of the phone number is decrypted already."""
        return cls(id=customer.id, name=customer.name, phone=f"...{customer.phone_last4}")


@app.post("/customers", status_code=201)
async def add(new: New, session: Session, tenant: Tenant) -> Shown:
    """Store a customer."""
    customer = Customer(tenant=tenant, name=new.name, phone=new.phone)
    session.add(customer)
    await session.commit()
    return Shown.of(customer)


@app.get("/customers")
async def find(phone: str, session: Session, tenant: Tenant) -> list[Shown]:
    """Find customers by the whole phone number, however it is written."""
    query = select(Customer).where(Customer.phone.matches(phone, tenant=tenant))
    found = (await session.scalars(query)).all()
    await decrypt_all(session, found, "phone_last4")
    return [Shown.of(customer) for customer in found]


@app.get("/customers/{customer_id}/phone")
async def read(customer_id: UUID, session: Session, tenant: Tenant) -> str:
    """Try to read a phone number, which this host cannot."""
    query = select(Customer).where(Customer.id == customer_id, Customer.tenant == tenant)
    customer = (await session.scalars(query)).one_or_none()
    if customer is None:
        raise HTTPException(404)
    await decrypt_all(session, [customer], "phone")
    return customer.phone


@app.exception_handler(RoleError)
async def refuse(_: Request, error: Exception) -> JSONResponse:
    """Say that this host may not."""
    return JSONResponse({"detail": str(error)}, status_code=403)


@app.exception_handler(ValueError)
async def invalid(_: Request, error: Exception) -> JSONResponse:
    """Say what is wrong with a phone number. The error does not quote it."""
    return JSONResponse({"detail": str(error)}, status_code=422)
