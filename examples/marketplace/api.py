"""The JSON API. The forms of the pages use it, too."""

from __future__ import annotations

from contextlib import suppress
from decimal import Decimal
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, BackgroundTasks, Body, Depends, HTTPException, Request, UploadFile
from fastapi.responses import RedirectResponse
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError

from aioimageattach import ImageAttachError, ImageSubset
from aioimageattach.problems import RESPONSES
from aioimageattach.schemas import PictureOut

from .accounts import Seller, Session, same_origin
from .models import Photo, Product


class ProductIn(BaseModel):
    title: Annotated[str, Field(min_length=1, max_length=100)]
    description: Annotated[str, Field(max_length=2000)] = ""
    price: Annotated[Decimal, Field(gt=0, max_digits=10, decimal_places=2)]


class PhotoOut(PictureOut):
    photo_id: UUID


class ProductOut(ProductIn):
    model_config = ConfigDict(from_attributes=True)
    id: int
    photos: list[PhotoOut]


async def own_product(product_id: int, seller: Seller, session: Session) -> Product:
    product = await session.get_one(Product, product_id, with_for_update=True)
    if product.seller is not seller:
        raise HTTPException(403, "This is not your product.")
    return product


OwnProduct = Annotated[Product, Depends(own_product)]


async def own_photo(photo_id: UUID, product: OwnProduct) -> ImageSubset[Photo]:
    photo = product.photos.get_image_set(photo_id=photo_id)
    photo.require_original()
    return photo


OwnPhoto = Annotated[ImageSubset[Photo], Depends(own_photo)]


async def make_thumbnails(request: Request, product_id: int) -> None:
    async with request.app.state.sessions() as session:
        with suppress(ImageAttachError, SQLAlchemyError):  # missing ones are made on request
            product = await session.get_one(Product, product_id)
            await session.commit()  # no transaction is open while images are decoded and encoded
            for photo in product.photos:
                await photo.generate_thumbnails()
                await session.commit()


def thumbnails_later(product_id: int, request: Request, tasks: BackgroundTasks) -> None:
    tasks.add_task(make_thumbnails, request, product_id)


router = APIRouter(prefix="/api/products", responses=RESPONSES, dependencies=[Depends(same_origin)])
LATER = [Depends(thumbnails_later)]
NEWEST = select(Product).order_by(Product.id.desc()).limit(60)


@router.get("", response_model=list[ProductOut])
async def index(session: Session) -> list[Product]:
    return list(await session.scalars(NEWEST))


@router.get("/{product_id}", response_model=ProductOut)
async def show(product_id: int, session: Session) -> Product:
    return await session.get_one(Product, product_id)


@router.post("", status_code=201, response_model=ProductOut)
async def add(product: ProductIn, seller: Seller, session: Session) -> Product:
    session.add(added := Product(seller=seller, **product.model_dump()))
    await session.flush()
    return added


@router.delete("/{product_id}", status_code=204)
async def remove(product: OwnProduct, session: Session) -> None:
    await session.delete(product)


@router.post("/{product_id}/photos", status_code=201, response_model=list[PhotoOut], dependencies=LATER)
async def add_photos(photos: list[UploadFile], product: OwnProduct) -> list[Photo]:
    return [await product.photos.get_image_set().from_file(photo) for photo in photos]


@router.put("/{product_id}/photos/{photo_id}", response_model=PhotoOut, dependencies=LATER)
async def replace_photo(file: UploadFile, photo: OwnPhoto) -> Photo:
    return await photo.from_file(file)


@router.patch("/{product_id}/photos/{photo_id}", status_code=204)
async def describe_photo(photo: OwnPhoto, caption: Annotated[str, Body(embed=True, max_length=200)]) -> None:
    photo.require_original().caption = caption


@router.delete("/{product_id}/photos/{photo_id}", status_code=204)
async def delete_photo(photo: OwnPhoto) -> None:
    await photo.delete()


@router.put("/{product_id}/order", status_code=204)
async def reorder_photos(order: list[UUID], product: OwnProduct) -> None:
    chosen = [product.photos.get_image_set(photo_id=photo_id) for photo_id in dict.fromkeys(order)]
    await product.photos.reorder(photo for photo in chosen if photo)


@router.get("/{product_id}/photos/{photo_id}/original")
async def download(photo: OwnPhoto) -> RedirectResponse:
    return RedirectResponse(photo.locate(download=f"original.{photo.mimetype.partition('/')[2]}"), 303)
