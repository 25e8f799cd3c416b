create table users (
	id   integer primary key,
	name text not null
);
create table orders (
	id      integer primary key,
	user_id integer not null references users,
	item    text not null,
	cents   integer not null
);
create index orders_of_user on orders (user_id);
create table pictures (
	id      integer primary key autoincrement, -- never used twice: clients keep thumbnails
	user_id integer references users,          -- null: nobody's
	width   integer not null,
	height  integer not null
);
create index pictures_of_user on pictures (user_id);
create table thumbnails (
	picture_id integer not null references pictures,
	place      integer not null, -- 64, 256 or 1024
	width      integer not null, -- that, or the picture's own if it is narrower
	jpeg       blob not null,
	primary key (picture_id, place)
);

insert into users (id, name) values (1, 'Ada'), (2, 'Grace'), (3, 'Edsger');
insert into orders (user_id, item, cents) values
	(1, 'tea', 350), (1, 'engine, analytical', 1700000),
	(2, 'nanosecond, 30 cm of wire', 120), (2, 'moth', 5), (2, 'clock, counter-clockwise', 4900);

pragma user_version = 1;
